//! Deterministic simulation of sagas against a model of products, with lost replies, late and
//! repeated deliveries, crashes and expiring reservations.
//!
//! A failure prints its seed, and the same seed reproduces the run. Mutation tests plant bugs to
//! prove that the simulation finds them.

#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

use std::collections::BTreeSet;

use palisade_orders::order::{
    FailureReason::{InsufficientStock, PriceChanged, ProductsUnavailable, ReservationExpired},
    Status,
};

use self::world::World;

mod products;
mod world;

const SEEDS: u64 = 2_000;

/// Bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    None,
    /// An order fails when products does not respond.
    TimeoutIsFailure,
    /// A release that arrives before its reserve leaves no tombstone.
    NoTombstone,
    /// A repeated reserve takes the stock again.
    ReserveTwice,
    /// A worker that lost its lease still records, and overwrites later changes.
    NoFence,
    /// A revision whose outcome is unknown counts as refused.
    TimeoutIsRefusal,
    /// A late revision is made although a later one was made.
    UnnumberedRevision,
}

#[test]
fn orders_and_products_agree_after_any_faults() {
    let (mut statuses, mut revisions) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..SEEDS {
        match World::run(seed, Bug::None) {
            Ok(ended) => {
                statuses.extend(ended.statuses);
                revisions.extend(ended.revisions);
            }
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    let failed = [InsufficientStock, ReservationExpired, ProductsUnavailable, PriceChanged].map(|reason| (Status::Failed, Some(reason)));
    let others = [Status::Confirmed, Status::Completed, Status::Cancelled].map(|status| (status, None));
    assert_eq!(statuses, failed.into_iter().chain(others).collect(), "the faults lead to every final status");
    assert_eq!(revisions, BTreeSet::from([false, true]), "revisions are made and refused");
}

#[test]
fn planted_bugs_are_found() {
    for bug in [Bug::TimeoutIsFailure, Bug::NoTombstone, Bug::ReserveTwice, Bug::NoFence, Bug::TimeoutIsRefusal, Bug::UnnumberedRevision] {
        let found = (0..SEEDS).find_map(|seed| World::run(seed, bug).err().map(|violation| (seed, violation)));
        let (seed, violation) = found.unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds"));
        eprintln!("{bug:?}: seed {seed}: {violation}");
    }
}
