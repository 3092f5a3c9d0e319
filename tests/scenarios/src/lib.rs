//! Resilience scenarios as data: scripted servers, calls, and the expected observations of caller,
//! server and metrics. A runner drives a [`Stack`](stack::Stack) through them as a black box, over
//! HTTP/2 connections in memory and a paused clock.
//!
//! [docs/scenarios.md] describes the files and has the table of all stacks.
//!
//! [docs/scenarios.md]: ../../../docs/scenarios.md

pub mod format;
pub mod network;
pub mod planted;
pub mod report;
pub mod run;
pub mod stack;

mod caller;
mod check;
mod observed;
mod scripted;
mod status;
