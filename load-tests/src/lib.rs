//! Load testing of the whole shop: k6 scenarios, game days, replica tests and performance
//! measurement.
//!
//! The k6 scripts are in `scenarios/`, one for each question. `load` runs one of them, `gameday`
//! injects faults under load and checks the effects, `replicas` restarts and kills replicas under
//! load, and `make performance` measures the cost of requests.
#![expect(clippy::missing_panics_doc, reason = "load tests fail by panicking")]

pub mod assertions;
mod environment;
pub mod gameday;
mod html;
mod k6;
pub mod performance;
pub mod remote_write;
pub mod replicas;
pub mod reports;
mod unix_time;

pub use environment::{Environment, settings, trust_scripts};
pub use k6::{EXIT_THRESHOLDS_FAILED, Outcome, SCENARIOS, run};
