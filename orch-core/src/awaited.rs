//! A value that tasks wait for.

use std::fmt;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A small value, and tasks that wait until it is as they want it.
///
/// Tasks are woken in the order in which they began to wait. tokio's `watch` wakes them in a
/// random order, which would keep a seed from repeating a history.
pub struct Awaited<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Copy + fmt::Debug> fmt::Debug for Awaited<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Awaited({:?})", self.get())
    }
}

impl<T: Copy> Awaited<T> {
    /// A value to begin with.
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    /// The value.
    pub fn get(&self) -> T {
        *self.value.lock()
    }

    /// Sets the value.
    pub fn set(&self, value: T) {
        *self.value.lock() = value;
        self.changed.notify_waiters();
    }

    /// Changes the value; `change` tells whether it did. Gives what it told.
    pub fn update(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let changed = change(&mut self.value.lock());
        if changed {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Waits until `check` holds, and gives the value for which it did. Values that were replaced
    /// before this task had its turn are not seen. Dropping the future has no effect.
    pub async fn wait_for(&self, check: impl Fn(T) -> bool) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registers before looking, so that no change in between goes unnoticed.
            changed.as_mut().enable();
            let value = self.get();
            if check(value) {
                return value;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waiters_wake_in_the_order_in_which_they_came() {
        let awaited = Arc::new(Awaited::new(0));
        let woken: Arc<Mutex<Vec<usize>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..20 {
            let (awaited, woken) = (awaited.clone(), woken.clone());
            tasks.spawn(async move {
                assert_eq!(awaited.wait_for(|value| value > 1).await, 2);
                woken.lock().push(at);
            });
        }
        tokio::task::yield_now().await;
        awaited.set(1);
        tokio::task::yield_now().await;
        assert!(awaited.update(|value| {
            *value += 1;
            true
        }));
        tasks.join_all().await;
        assert_eq!(*woken.lock(), (0..20).collect::<Vec<_>>());
    }
}
