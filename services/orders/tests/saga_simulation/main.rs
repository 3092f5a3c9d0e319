//! Sagas against a model of products, under lost replies, late and repeated deliveries, crashes and expiring holds.
//!
//! A failure names its seed; the same seed gives the same run. Bugs can be planted, to see that they would be found.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;

use palisade_orders::order::{
    FailureReason::{InsufficientStock, ProductsUnavailable, ReservationExpired},
    Status,
};

use self::world::World;

mod products;
mod random;
mod world;

const SEEDS: u64 = 2_000;

/// What can be planted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// An order fails when products does not answer.
    TimeoutIsFailure,
    /// A release that comes before its reserve leaves no trace.
    NoTombstone,
    /// A repeated reserve takes the stock again.
    ReserveTwice,
    /// A worker that lost its lease still records, over whatever happened since.
    NoFence,
}

#[test]
fn orders_and_products_agree_after_any_faults() {
    let mut ends = BTreeSet::new();
    for seed in 0..SEEDS {
        match World::run(seed, Bug::None) {
            Ok(seen) => ends.extend(seen),
            Err(broken) => panic!("seed {seed}: {broken}"),
        }
    }
    let failed = [InsufficientStock, ReservationExpired, ProductsUnavailable].map(|reason| (Status::Failed, Some(reason)));
    let others = [Status::Confirmed, Status::Completed, Status::Cancelled].map(|status| (status, None));
    assert_eq!(ends, failed.into_iter().chain(others).collect(), "the faults reach every end");
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::TimeoutIsFailure, Bug::NoTombstone, Bug::ReserveTwice, Bug::NoFence] {
        let found = (0..SEEDS).find_map(|seed| World::run(seed, bug).err().map(|broken| (seed, broken)));
        let (seed, broken) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
        eprintln!("{bug:?}: seed {seed}: {broken}");
    }
}
