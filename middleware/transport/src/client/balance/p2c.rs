//! Power of two choices (P2C): compares the load of two random endpoints and picks the lower one.
//! Almost as good as the global minimum, hardly more expensive than random, and free of the herd
//! effect of always picking the minimum.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::Instant;

use super::node::BalancedEndpoint;
use palisade_resilience::{circuit_breaker::Permit, jitter, time_limit::TimeLimit};

/// Properties of a call that affect the pick.
#[derive(Debug, Clone, Copy)]
pub(super) struct PickContext<'a> {
    pub(super) now: Instant,
    pub(super) deadline: Option<TimeLimit>,
    /// Whether the call may probe an endpoint whose breaker is not closed.
    pub(super) may_probe: bool,
    /// Endpoints of the previous attempts.
    pub(super) previous: &'a [Arc<BalancedEndpoint>],
}

/// Result of a pick.
#[derive(Debug)]
pub(super) struct Picked<'a> {
    pub(super) node: &'a Arc<BalancedEndpoint>,
    /// `None` if the pick ignores the endpoint's breaker.
    pub(super) permit: Option<Permit>,
    /// Panic mode: no endpoint is usable, so that any is picked.
    pub(super) panic_mode: bool,
}

/// Picks one of `nodes`, which must not be empty.
///
/// Order of preference: an endpoint with a due probe, which its load would otherwise never attract;
/// a usable endpoint (healthy, or above the ejection limit) that the call has not tried; any usable
/// endpoint; any endpoint outside connect backoff; any endpoint.
pub(super) fn pick<'a>(nodes: &'a [Arc<BalancedEndpoint>], rng: &Rng, context: PickContext<'_>) -> Picked<'a> {
    let PickContext { now, deadline, may_probe, previous } = context;
    let sampled = sample_two(nodes.iter(), rng.next_u64()).expect("nodes is not empty");
    if may_probe {
        for node in [sampled.0, sampled.1] {
            if let Some(permit) = node.acquire_probe(now, deadline) {
                return Picked { node, permit: Some(permit), panic_mode: false };
            }
        }
    }
    let is_usable = |node: &&Arc<BalancedEndpoint>| node.is_usable(now);
    let previous = if palisade_resilience::planted!("same endpoint tried again") { &[] } else { previous };
    let is_untried = |node: &&Arc<BalancedEndpoint>| is_usable(node) && !previous.iter().any(|tried| Arc::ptr_eq(tried, node));
    let pair = if is_untried(&sampled.0) && is_untried(&sampled.1) {
        Some(sampled)
    } else {
        sample_two(nodes.iter().filter(is_untried), rng.next_u64())
    };
    let pair = pair.or_else(|| sample_two(nodes.iter().filter(is_usable), rng.next_u64()));
    for node in pair.map(|pair| by_cost(pair, now)).into_iter().flatten() {
        let permit = node.acquire(now, deadline);
        // The endpoint may have been ejected since the sampling.
        if permit.is_some() || node.is_usable(now) {
            return Picked { node, permit, panic_mode: false };
        }
    }
    let pair = sample_two(nodes.iter().filter(|node| !node.is_backing_off(now)), rng.next_u64()).unwrap_or(sampled);
    let [node, _] = by_cost(pair, now);
    Picked { node, permit: node.acquire(now, deadline), panic_mode: true }
}

/// Sorts by cost. Equal costs keep their order, which is random.
fn by_cost<'a>((first, second): (&'a Arc<BalancedEndpoint>, &'a Arc<BalancedEndpoint>), now: Instant) -> [&'a Arc<BalancedEndpoint>; 2] {
    if second.cost(now) < first.cost(now) && !palisade_resilience::planted!("load ignored") { [second, first] } else { [first, second] }
}

/// Samples two different candidates, or the only one twice.
fn sample_two<T: Copy>(mut candidates: impl Iterator<Item = T> + Clone, random: u64) -> Option<(T, T)> {
    let count = candidates.clone().count();
    if count < 2 {
        return candidates.next().map(|only| (only, only));
    }
    let (first, second) = distinct_pair(count, random);
    Some((candidates.clone().nth(first)?, candidates.nth(second)?))
}

/// Returns two different numbers below `count`, which is at least 2.
fn distinct_pair(count: usize, random: u64) -> (usize, usize) {
    let (sides, below) = (count as u64, |number: u64| usize::try_from(number).unwrap_or_default());
    let (first, second) = (below(random % sides), below(random / sides % (sides - 1)));
    (first, if second < first { second } else { second + 1 })
}

/// Lock-free uniform random numbers (`SplitMix64`), without system calls.
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
