//! Ranges of sizes and costs. Nothing overflows; the largest number stands for what is unknown.
//!
//! Source: cel-go `checker/cost.go` (`SizeEstimate`, `CostEstimate`).

/// The least and the most that something costs, or how large it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The least.
    pub min: u64,
    /// The most.
    pub max: u64,
}

impl Range {
    /// Exactly this.
    pub const fn exactly(value: u64) -> Self {
        Self { min: value, max: value }
    }

    /// Anything from nothing on.
    pub const UNKNOWN: Self = Self { min: 0, max: u64::MAX };

    /// A range that every other one widens.
    pub(super) const NONE: Self = Self { min: u64::MAX, max: 0 };

    pub(super) fn plus(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// So many times, rounded up.
    pub(super) fn scaled(self, factor: f64) -> Self {
        Self { min: scaled(self.min, factor), max: scaled(self.max, factor) }
    }

    pub(super) fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

/// So many times a number, rounded up.
pub(super) fn scaled(value: u64, factor: f64) -> u64 {
    // The cast saturates, as upstream does by hand.
    (value as f64 * factor).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overflows() {
        assert_eq!(Range::UNKNOWN.plus(Range::exactly(1)).max, u64::MAX);
        assert_eq!(Range::UNKNOWN.times(Range::exactly(2)).max, u64::MAX);
        assert_eq!(Range::UNKNOWN.scaled(2.0).max, u64::MAX);
        assert_eq!(Range::exactly(11).scaled(0.1), Range::exactly(2));
    }
}
