//! Load on the whole shop: starts what a k6 script needs, runs it, and tells whether it was satisfied.
//!
//! The scripts are in `scenarios/`, one for each question; `load` runs one of them, `gameday` breaks
//! something meanwhile and looks whether the right things happen, `replicas` restarts and kills one of several
//! replicas after another, `capacity` measures what requests cost.
#![expect(clippy::missing_panics_doc, reason = "a panic is how a load test fails")]

pub mod performance;
pub mod assertions;
pub mod gameday;
mod html;
mod k6;
mod unix_time;
pub mod remote_write;
pub mod replicas;
pub mod reports;
mod environment;

pub use k6::{EXIT_THRESHOLDS_FAILED, Outcome, SCENARIOS, run};
pub use environment::{Environment, settings, trust_scripts};
