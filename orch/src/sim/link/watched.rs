//! An open watch behind a connection: late, standing still, dropped, expired.

use std::{collections::VecDeque, future::pending, time::Duration};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use orch_core::{ApiError, testing::Call};
use tokio::time::Instant;

use super::Connection;

/// How many events are on their way at once; what comes then waits at the server.
const ON_THE_WAY_MAX: usize = 64;

/// What the client is told at the end: an answer of the server, or that the connection broke.
type Told<T> = fn(Option<ApiError>) -> T;

struct Watched<T> {
    inner: BoxStream<'static, T>,
    connection: Connection,
    call: Call<'static>,
    told: Told<T>,
    /// What has come, and when it is due; an error is what ends the watch.
    on_the_way: VecDeque<(Instant, Result<T, Option<ApiError>>)>,
    /// Nothing more comes.
    ended: bool,
    interruptions: usize,
    lag: Duration,
}

/// The events of a watch as they arrive. `call` is what the delivery of one of them is.
pub(super) fn watched<T: Send + 'static>(
    connection: Connection,
    call: Call<'static>,
    inner: BoxStream<'static, T>,
    told: Told<T>,
) -> BoxStream<'static, T> {
    let (_, interruptions) = connection.line.turn();
    let lag = connection.line.draw_lag();
    let watched = Watched {
        inner,
        connection,
        call,
        told,
        on_the_way: VecDeque::new(),
        ended: false,
        interruptions,
        lag,
    };
    stream::unfold(Some(watched), |watched| async move {
        let mut watched = watched?;
        let next = watched.next().await?;
        watched.connection.life.stop_if_over().await;
        Some(match next {
            Ok(item) => (item, Some(watched)),
            Err(answer) => ((watched.told)(answer), None),
        })
    })
    .boxed()
}

impl<T> Watched<T> {
    async fn next(&mut self) -> Option<Result<T, Option<ApiError>>> {
        loop {
            let line = self.connection.line.clone();
            let (turn, _) = line.turn();
            if let Some(told) = line.interruption(&self.call, self.interruptions) {
                return Some(Err(told));
            }
            let stalled = line.stalled(&self.call);
            let due = self.on_the_way.front().map(|(due, _)| *due);
            if self.ended && due.is_none() {
                return None;
            }
            let due = due.filter(|_| stalled.is_none());
            if due.is_some_and(|due| due <= Instant::now()) {
                return self.on_the_way.pop_front().map(|(_, item)| item);
            }
            let takes = stalled.is_none() && !self.ended && self.on_the_way.len() < ON_THE_WAY_MAX;
            tokio::select! {
                biased;
                () = line.after_turn(turn) => {}
                () = until(due.or(stalled.flatten())) => {}
                item = self.inner.next(), if takes => self.take(item),
            }
        }
    }

    fn take(&mut self, item: Option<T>) {
        let Some(item) = item else {
            self.ended = true;
            return;
        };
        let line = &self.connection.line;
        let instead = line.instead_of(&self.call);
        self.ended |= instead.is_some();
        let due = Instant::now() + line.keep_back(&self.call, self.lag);
        self.on_the_way.push_back((due, instead.map_or(Ok(item), Err)));
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => pending().await,
    }
}
