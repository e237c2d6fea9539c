//! What was true lately: what a component may still believe.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

/// The values that something had in the last while, the newest last. The value from before the
/// while, which held when it began, is among them.
#[derive(Clone, Debug)]
pub struct Recent<T> {
    window: Duration,
    values: VecDeque<(Timestamp, T)>,
}

impl<T: PartialEq> Recent<T> {
    /// Nothing yet; a while of this length.
    pub fn new(window: Duration) -> Self {
        Self { window, values: VecDeque::new() }
    }

    /// The value from now on.
    pub fn set(&mut self, now: Timestamp, value: T) {
        self.forget(now);
        if self.values.back().is_none_or(|(_, last)| *last != value) {
            self.values.push_back((now, value));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        // A value is over once its successor is older than the window.
        while self
            .values
            .get(1)
            .is_some_and(|(until, _)| now.duration_since(*until).unsigned_abs() > self.window)
        {
            self.values.pop_front();
        }
    }

    /// The values, with what is over forgotten.
    pub fn values(&mut self, now: Timestamp) -> impl Iterator<Item = &T> {
        self.forget(now);
        self.values.iter().map(|(_, value)| value)
    }

    /// The newest value.
    pub fn last(&self) -> Option<&T> {
        self.values.back().map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_until_its_successor_is_old() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut recent = Recent::new(Duration::from_secs(10));
        recent.set(at(0), 1);
        recent.set(at(100), 2);
        recent.set(at(105), 2);
        assert_eq!(recent.values(at(110)).collect::<Vec<_>>(), [&1, &2]);
        assert_eq!(recent.values(at(111)).collect::<Vec<_>>(), [&2]);
        assert_eq!(recent.last(), Some(&2));
    }
}
