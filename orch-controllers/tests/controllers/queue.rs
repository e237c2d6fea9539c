//! The queue's guarantees.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use orch_controllers::{
    Metrics, WorkQueue,
    queue::{QueueMetrics, RateLimits},
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn items_are_distinct_and_first_in_first_out() {
    let queue = WorkQueue::<&str>::default();
    for item in ["a", "b", "a", "c", "b"] {
        queue.add(item);
    }
    assert_eq!(queue.len(), 3);
    for expected in ["a", "b", "c"] {
        assert_eq!(*queue.get().await.unwrap().item(), expected);
    }
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn an_item_in_work_comes_back_only_when_it_is_done() {
    let queue = WorkQueue::<&str>::default();
    queue.add("a");
    let first = queue.get().await.unwrap();
    queue.add("a");
    queue.add("a");
    assert_eq!(queue.len(), 0);
    let waiting = tokio::time::timeout(Duration::from_secs(1), queue.get()).await;
    assert!(waiting.is_err(), "nobody else may have it");
    drop(first);
    assert_eq!(*queue.get().await.unwrap().item(), "a");
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn of_delayed_additions_the_earliest_counts() {
    let queue = WorkQueue::<&str>::default();
    let start = Instant::now();
    queue.add_after("a", Duration::from_secs(10));
    queue.add_after("a", Duration::from_secs(2));
    queue.add_after("a", Duration::from_secs(5));
    assert_eq!(*queue.get().await.unwrap().item(), "a");
    assert_eq!(start.elapsed().as_secs(), 2);
    assert!(queue.is_idle());
}

#[tokio::test(start_paused = true)]
async fn failed_items_back_off_until_forgotten() {
    let queue = WorkQueue::<&str>::new(RateLimits::default());
    for expected_ms in [5, 10, 20, 40] {
        let start = Instant::now();
        queue.add_rate_limited("a");
        drop(queue.get().await.unwrap());
        assert_eq!(start.elapsed().as_millis(), expected_ms);
    }
    assert_eq!(queue.retries(&"a"), 4);
    queue.forget(&"a");
    assert_eq!(queue.retries(&"a"), 0);
}

#[tokio::test(start_paused = true)]
async fn closing_ends_every_worker() {
    let queue = WorkQueue::<&str>::default();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move { while queue.get().await.is_some() {} })
        })
        .collect();
    tokio::task::yield_now().await;
    queue.close();
    for worker in workers {
        worker.await.unwrap();
    }
    queue.add("late");
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_workers_never_share_an_item_and_lose_none() {
    let queue = WorkQueue::<usize>::default();
    let in_work: Arc<Vec<AtomicUsize>> = Arc::new((0..10).map(|_| AtomicUsize::new(0)).collect());
    let seen: Arc<Vec<AtomicUsize>> = Arc::new((0..10).map(|_| AtomicUsize::new(0)).collect());
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (queue, in_work, seen) = (queue.clone(), in_work.clone(), seen.clone());
        workers.spawn(async move {
            while let Some(work) = queue.get().await {
                let at = *work.item();
                assert_eq!(in_work[at].fetch_add(1, Ordering::SeqCst), 0, "shared");
                tokio::time::sleep(Duration::from_millis(at as u64 + 1)).await;
                seen[at].fetch_add(1, Ordering::SeqCst);
                in_work[at].fetch_sub(1, Ordering::SeqCst);
            }
        });
    }
    for round in 0..50u64 {
        for item in 0..10 {
            queue.add(item);
            queue.add_after(item, Duration::from_millis(round));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    while !queue.is_idle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    queue.close();
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    assert!(seen.iter().all(|count| count.load(Ordering::SeqCst) >= 2));
}

#[tokio::test(start_paused = true)]
async fn metrics_hear_of_everything() {
    #[derive(Default)]
    struct Counts([AtomicUsize; 4]);
    impl QueueMetrics for Counts {
        fn added(&self, _: usize) {
            self.0[0].fetch_add(1, Ordering::Relaxed);
        }
        fn taken(&self, _: usize, waited: Duration) {
            assert_eq!(waited, Duration::ZERO);
            self.0[1].fetch_add(1, Ordering::Relaxed);
        }
        fn finished(&self, worked: Duration) {
            assert_eq!(worked, Duration::from_secs(1));
            self.0[2].fetch_add(1, Ordering::Relaxed);
        }
        fn retried(&self) {
            self.0[3].fetch_add(1, Ordering::Relaxed);
        }
    }
    let counts = Arc::new(Counts::default());
    let queue = WorkQueue::<&str>::measured(RateLimits::default(), counts.clone());
    queue.add("a");
    queue.add("a");
    let work = queue.get().await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    drop(work);
    queue.add_rate_limited("b");
    assert_eq!(counts.0.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn queues_are_counted_under_the_names_of_kubernetes() {
    let (metrics, queue) = (Metrics::new(), WorkQueue::<&str>::default());
    metrics.count("web", &queue);
    for item in ["a", "b", "c", "a"] {
        queue.add(item);
    }
    queue.add_rate_limited("d");
    let (long, short) = (queue.get().await.unwrap(), queue.get().await.unwrap());
    tokio::time::advance(Duration::from_secs(2)).await;
    drop(short);
    tokio::time::advance(Duration::from_secs(1)).await;
    let text = metrics.encode();
    for line in [
        "workqueue_depth{name=\"web\"} 1",
        "workqueue_adds_total{name=\"web\"} 3",
        "workqueue_retries_total{name=\"web\"} 1",
        "workqueue_queue_duration_seconds_count{name=\"web\"} 2",
        "workqueue_work_duration_seconds_bucket{le=\"10.0\",name=\"web\"} 1",
        "workqueue_work_duration_seconds_sum{name=\"web\"} 2.0",
        "workqueue_unfinished_work_seconds{name=\"web\"} 3.0",
        "workqueue_longest_running_processor_seconds{name=\"web\"} 3.0",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    drop(long);
}
