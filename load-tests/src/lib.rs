//! Load testing of the whole shop: k6 scenarios, game days, replica tests and performance
//! measurement.
//!
//! The k6 scripts are in `scenarios/`, one for each question. `load` runs one of them, `gameday`
//! injects faults under load and checks the effects, `replicas` restarts and kills replicas under
//! load, and `performance` measures the cost of requests.
#![expect(clippy::missing_panics_doc, reason = "load tests fail by panicking")]

mod environment;
pub mod gameday;
mod k6;
pub mod performance;
pub mod remote_write;
pub mod replicas;
pub mod reports;

pub use environment::{Environment, TimeLimits, settings, trust_scripts};
pub use k6::{EXIT_THRESHOLDS_FAILED, Outcome, SCENARIOS, run, run_with_reports};
