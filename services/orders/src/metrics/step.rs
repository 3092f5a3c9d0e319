//! Saga steps and the labels of their outcomes.

use crate::{
    fulfilment::FulfilOutcome,
    saga::{ConfirmOutcome, ReleaseOutcome, ReserveOutcome, ReviseOutcome},
};

const HELD: &str = "held";
const REJECTED: &str = "refused";
const RELEASED: &str = "released";
const EXPIRED: &str = "expired";
const CONFIRMED: &str = "confirmed";
const LOST: &str = "lost";
const REVISED: &str = "revised";
const DONE: &str = "done";
const MISSING: &str = "missing";
const UNKNOWN: &str = "unknown";

/// Result of a saga step, as a metric label.
pub(crate) trait Step {
    /// Value of the `step` label.
    const NAME: &'static str;
    /// Span name. It distinguishes forward and compensating steps.
    const SPAN: &'static str;
    /// All values of the `outcome` label.
    const OUTCOMES: &'static [&'static str];

    /// Returns the `outcome` label.
    fn outcome(&self) -> &'static str;

    /// Whether products returned a definite result.
    fn is_conclusive(&self) -> bool {
        self.outcome() != UNKNOWN
    }
}

impl Step for ReserveOutcome {
    const NAME: &'static str = "reserve_stock";
    const SPAN: &'static str = "step reserve_stock";
    const OUTCOMES: &'static [&'static str] = &[HELD, CONFIRMED, REJECTED, RELEASED, EXPIRED, UNKNOWN];

    fn outcome(&self) -> &'static str {
        match self {
            Self::Held(_) => HELD,
            Self::Confirmed(_) => CONFIRMED,
            Self::Rejected(_) => REJECTED,
            Self::Released => RELEASED,
            Self::Expired => EXPIRED,
            Self::Unknown { .. } => UNKNOWN,
        }
    }
}

impl Step for ConfirmOutcome {
    const NAME: &'static str = "confirm_reservation";
    const SPAN: &'static str = "step confirm_reservation";
    const OUTCOMES: &'static [&'static str] = &[CONFIRMED, LOST, UNKNOWN];

    fn outcome(&self) -> &'static str {
        match self {
            Self::Confirmed => CONFIRMED,
            Self::Lost => LOST,
            Self::Unknown { .. } => UNKNOWN,
        }
    }
}

impl Step for ReleaseOutcome {
    const NAME: &'static str = "release_reservation";
    const SPAN: &'static str = "compensate release_reservation";
    const OUTCOMES: &'static [&'static str] = &[DONE, UNKNOWN];

    fn outcome(&self) -> &'static str {
        match self {
            Self::Done => DONE,
            Self::Unknown { .. } => UNKNOWN,
        }
    }
}

impl Step for ReviseOutcome {
    const NAME: &'static str = "revise_reservation";
    const SPAN: &'static str = "step revise_reservation";
    const OUTCOMES: &'static [&'static str] = &[REVISED, REJECTED, LOST, UNKNOWN];

    fn outcome(&self) -> &'static str {
        match self {
            Self::Revised(_) => REVISED,
            Self::Refused(_) => REJECTED,
            Self::Lost => LOST,
            Self::Unknown { .. } => UNKNOWN,
        }
    }
}

impl Step for FulfilOutcome {
    const NAME: &'static str = "fulfil_reservation";
    const SPAN: &'static str = "step fulfil_reservation";
    const OUTCOMES: &'static [&'static str] = &[DONE, MISSING, UNKNOWN];

    fn outcome(&self) -> &'static str {
        match self {
            Self::Done => DONE,
            Self::Missing => MISSING,
            Self::Unknown { .. } => UNKNOWN,
        }
    }
}
