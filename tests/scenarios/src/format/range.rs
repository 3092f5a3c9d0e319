//! Expected quantity: one number, or the smallest and the largest.

use std::fmt;

use serde::Deserialize;

/// A range with both bounds included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub(crate) struct Range {
    min: u64,
    max: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(u64),
    Two([u64; 2]),
}

impl From<Written> for Range {
    fn from(written: Written) -> Self {
        match written {
            Written::One(number) => Self { min: number, max: number },
            Written::Two([min, max]) => Self { min, max },
        }
    }
}

impl Range {
    pub(crate) fn exactly(number: u64) -> Self {
        Self { min: number, max: number }
    }

    pub(crate) fn contains(self, value: u64) -> bool {
        (self.min..=self.max).contains(&value)
    }

    /// Whether a point in time meets the range, if timers may be late by `slack`.
    pub(crate) fn contains_ms(self, value: u64, slack: u64) -> bool {
        (self.min..=self.max.saturating_add(slack)).contains(&value)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}..={}", self.min, self.max) }
    }
}
