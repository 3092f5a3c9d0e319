//! Hostile callers: whatever one caller sends within its rights, the service of all others goes on.
//!
//! Each test starts an attack on a running shop and keeps the traffic of a [`victim`] running. The
//! verdict is the victim's share of successful requests, because latency depends on the machine.
//! Latency is printed, quiet and under attack. To add an attack: build an [`attack::Attack`] and
//! pass it to [`victim::Victim::assert_served_during`].
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

mod anonymous;
mod attack;
mod connections;
mod greedy_user;
mod overload;
mod short_deadlines;
mod slow_requests;
mod unread_responses;
mod victim;
