//! The choice: of two endpoints drawn at random the one with less to do. As good as the best of all and hardly dearer than chance, and
//! unlike "the best of all" it does not send everybody to the same one.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::node::BalancedEndpoint;
use crate::{circuit_breaker::Permit, jitter};

/// What a call needs to know of itself to find its endpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct PickContext<'a> {
    pub(super) now: Instant,
    pub(super) deadline: Option<Instant>,
    /// Whether the call may be the one that finds out whether an endpoint is well again.
    pub(super) may_probe: bool,
    /// Where it has been.
    pub(super) previous: &'a [Arc<BalancedEndpoint>],
}

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Picked<'a> {
    pub(super) node: &'a Arc<BalancedEndpoint>,
    /// None if the endpoint's breaker is not heeded.
    pub(super) permit: Option<Permit>,
    /// All endpoints are left out: better this one than none.
    pub(super) panic_mode: bool,
}

/// Chooses among `nodes`, of which there is at least one.
///
/// An endpoint that is to prove its health comes first: by its load it would never be chosen, and so never be well. Then those that are
/// well, or whose ejection is not enforced, of these those that the call has not tried; then any that can be reached; then any.
pub(super) fn pick<'a>(nodes: &'a [Arc<BalancedEndpoint>], rng: &Rng, context: PickContext<'_>) -> Picked<'a> {
    let PickContext { now, deadline, may_probe, previous } = context;
    let sampled = sample_two(nodes.iter(), rng.next_u64()).expect("a target has an endpoint");
    if may_probe {
        for node in [sampled.0, sampled.1] {
            if let Some(permit) = node.acquire_probe(now, deadline) {
                return Picked { node, permit: Some(permit), panic_mode: false };
            }
        }
    }
    let is_usable = |node: &&Arc<BalancedEndpoint>| node.is_usable(now);
    let is_untried = |node: &&Arc<BalancedEndpoint>| is_usable(node) && !previous.iter().any(|tried| Arc::ptr_eq(tried, node));
    let pair = if is_untried(&sampled.0) && is_untried(&sampled.1) { Some(sampled) } else { sample_two(nodes.iter().filter(is_untried), rng.next_u64()) };
    let pair = pair.or_else(|| sample_two(nodes.iter().filter(is_usable), rng.next_u64()));
    for node in pair.map(|pair| by_cost(pair, now)).into_iter().flatten() {
        let permit = node.acquire(now, deadline);
        // It may have been left out since we looked.
        if permit.is_some() || node.is_usable(now) {
            return Picked { node, permit, panic_mode: false };
        }
    }
    let pair = sample_two(nodes.iter().filter(|node| !node.is_backing_off(now)), rng.next_u64()).unwrap_or(sampled);
    let [node, _] = by_cost(pair, now);
    Picked { node, permit: node.acquire(now, deadline), panic_mode: true }
}

/// The better one first; the first of equals, so that chance decides.
fn by_cost<'a>((first, second): (&'a Arc<BalancedEndpoint>, &'a Arc<BalancedEndpoint>), now: Instant) -> [&'a Arc<BalancedEndpoint>; 2] {
    if second.cost(now) < first.cost(now) { [second, first] } else { [first, second] }
}

/// Two different ones, or the only one twice.
fn sample_two<T: Copy>(mut candidates: impl Iterator<Item = T> + Clone, random: u64) -> Option<(T, T)> {
    let count = candidates.clone().count();
    if count < 2 {
        return candidates.next().map(|only| (only, only));
    }
    let (first, second) = distinct_pair(count, random);
    Some((candidates.clone().nth(first)?, candidates.nth(second)?))
}

/// Two different numbers below `count`, which is at least 2.
fn distinct_pair(count: usize, random: u64) -> (usize, usize) {
    let (sides, below) = (count as u64, |number: u64| usize::try_from(number).unwrap_or_default());
    let (first, second) = (below(random % sides), below(random / sides % (sides - 1)));
    (first, if second < first { second } else { second + 1 })
}

/// Evenly drawn numbers, without a lock or a system call (`SplitMix64`).
#[derive(Debug)]
pub(super) struct Rng(AtomicU64);

impl Rng {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(jitter::random_unit().to_bits()))
    }

    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let seed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests;
