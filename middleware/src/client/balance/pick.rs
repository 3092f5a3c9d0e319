//! The choice: of two endpoints drawn at random the one with less to do. As good as the best of all and hardly dearer than chance, and
//! unlike "the best of all" it does not send everybody to the same one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::node::Node;
use crate::{circuit_breaker::Permit, jitter};

/// What a call needs to know of itself to find its endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) now: Instant,
    pub(super) deadline: Option<Instant>,
    /// Whether the call may be the one that finds out whether an endpoint is well again.
    pub(super) may_probe: bool,
    /// Where it has been.
    pub(super) tried: &'a [Arc<Node>],
}

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) node: &'a Arc<Node>,
    /// None if the endpoint's breaker is not heeded.
    pub(super) permit: Option<Permit>,
    /// All endpoints are left out: better this one than none.
    pub(super) panics: bool,
}

/// Chooses among `nodes`, of which there is at least one.
///
/// An endpoint that is to prove its health comes first: by its load it would never be chosen, and so never be well. Then those that are
/// well, or whose ejection is not enforced, of these those that the call has not tried; then any that can be reached; then any.
pub(super) fn pick<'a>(nodes: &'a [Arc<Node>], dice: &Dice, wanted: Wanted<'_>) -> Choice<'a> {
    let Wanted { now, deadline, may_probe, tried } = wanted;
    let drawn = two_of(nodes.iter(), dice.roll()).expect("a target has an endpoint");
    if may_probe {
        for node in [drawn.0, drawn.1] {
            if let Some(permit) = node.probe(now, deadline) {
                return Choice { node, permit: Some(permit), panics: false };
            }
        }
    }
    let usable = |node: &&Arc<Node>| node.is_usable(now);
    let fresh = |node: &&Arc<Node>| usable(node) && !tried.iter().any(|tried| Arc::ptr_eq(tried, node));
    let pair = if fresh(&drawn.0) && fresh(&drawn.1) { Some(drawn) } else { two_of(nodes.iter().filter(fresh), dice.roll()) };
    let pair = pair.or_else(|| two_of(nodes.iter().filter(usable), dice.roll()));
    for node in pair.map(|pair| by_cost(pair, now)).into_iter().flatten() {
        let permit = node.acquire(now, deadline);
        // It may have been left out since we looked.
        if permit.is_some() || node.is_usable(now) {
            return Choice { node, permit, panics: false };
        }
    }
    let pair = two_of(nodes.iter().filter(|node| !node.is_pausing(now)), dice.roll()).unwrap_or(drawn);
    let [node, _] = by_cost(pair, now);
    Choice { node, permit: node.acquire(now, deadline), panics: true }
}

/// The better one first; the first of equals, so that chance decides.
fn by_cost<'a>((first, second): (&'a Arc<Node>, &'a Arc<Node>), now: Instant) -> [&'a Arc<Node>; 2] {
    if second.cost(now) < first.cost(now) { [second, first] } else { [first, second] }
}

/// Two different ones, or the only one twice.
fn two_of<T: Copy>(mut candidates: impl Iterator<Item = T> + Clone, roll: u64) -> Option<(T, T)> {
    let count = candidates.clone().count();
    if count < 2 {
        return candidates.next().map(|only| (only, only));
    }
    let (first, second) = two_below(count, roll);
    Some((candidates.clone().nth(first)?, candidates.nth(second)?))
}

/// Two different numbers below `count`, which is at least 2.
fn two_below(count: usize, roll: u64) -> (usize, usize) {
    let (sides, below) = (count as u64, |number: u64| usize::try_from(number).unwrap_or_default());
    let (first, second) = (below(roll % sides), below(roll / sides % (sides - 1)));
    (first, if second < first { second } else { second + 1 })
}

/// Evenly drawn numbers, without a lock or a system call (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Dice(AtomicU64);

impl Dice {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(jitter::draw().to_bits()))
    }

    fn roll(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let seed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
