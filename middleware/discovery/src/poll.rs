//! Poll loop for registries without push: looks up at the TTL of the last result, with jitter.

use std::{error::Error, future::Future, time::Duration};

use super::{config::Config, resolved_endpoints::ResolvedEndpoints};
use palisade_resilience::{
    backoff::Backoff,
    jitter::{self, RandomFn},
};
use palisade_transport::client::address::Address;

/// Backoff after the first failed lookup, doubled with each further one. Short, because at a common
/// start the registry is often available a moment later.
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
/// Maximum backoff of failed lookups.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Timeout of a lookup with all its queries.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Jitter of the intervals, so that clients started together do not poll together.
const JITTER: f64 = 0.1;

/// Registry that can be polled.
pub(super) trait Resolve: Send {
    /// Reason of a failed lookup.
    type Error: Error + Send + 'static;

    /// Looks up all addresses once.
    fn resolve(&mut self) -> impl Future<Output = Result<Resolved, Self::Error>> + Send;
}

/// Result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Addresses in any order.
    pub(super) addresses: Vec<Address>,
    /// Number of invalid entries.
    pub(super) invalid: usize,
    /// Time to live of the result.
    pub(super) ttl: Duration,
    /// Whether a part is from an earlier lookup, because its query failed; polled again soon.
    pub(super) stale_part: bool,
}

/// The lookup timed out.
#[derive(Debug, thiserror::Error)]
#[error("lookup timed out after {LOOKUP_TIMEOUT:?}")]
struct TimedOut;

/// Polls forever.
pub(super) async fn run(mut registry: impl Resolve, mut endpoints: ResolvedEndpoints, config: Config, random: RandomFn) {
    let (min, max) = (Duration::from_millis(config.min_refresh_ms), Duration::from_millis(config.max_refresh_ms));
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        let result = endpoints.await_updating_age(tokio::time::timeout(LOOKUP_TIMEOUT, registry.resolve())).await;
        let ttl = match result {
            Ok(Ok(resolved)) => {
                endpoints.apply(resolved.addresses, resolved.invalid).then_some(if resolved.stale_part { min } else { resolved.ttl })
            }
            Ok(Err(error)) => {
                endpoints.record_failure(&error);
                None
            }
            Err(_) => {
                endpoints.record_failure(&TimedOut);
                None
            }
        };
        let delay = if let Some(ttl) = ttl {
            backoff.reset();
            jitter::jittered(ttl.clamp(min, max), JITTER, random).max(min)
        } else {
            jitter::jittered(backoff.next_wait(), JITTER, random)
        };
        endpoints.await_updating_age(tokio::time::sleep(delay)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use parking_lot::Mutex;
    use tokio::time::Instant;

    use super::*;
    use palisade_transport::client::{
        self,
        balance::{Balancer, Endpoints},
    };

    #[derive(Debug, Clone)]
    enum ScriptedResult {
        Addresses(&'static [&'static str], u64),
        Error,
        Hang,
    }

    /// Registry with scripted results, of which the last is repeated. Records the time of each
    /// lookup.
    struct ScriptedRegistry {
        results: VecDeque<ScriptedResult>,
        lookups: Arc<Mutex<Vec<Instant>>>,
    }

    impl Resolve for ScriptedRegistry {
        type Error = std::fmt::Error;

        async fn resolve(&mut self) -> Result<Resolved, std::fmt::Error> {
            self.lookups.lock().push(Instant::now());
            let result = if self.results.len() > 1 { self.results.pop_front() } else { self.results.front().cloned() };
            match result.unwrap() {
                ScriptedResult::Addresses(names, seconds) => Ok(Resolved {
                    addresses: names.iter().map(|name| Address::parse(&format!("http://{name}")).unwrap()).collect(),
                    invalid: 0,
                    ttl: Duration::from_secs(seconds),
                    stale_part: false,
                }),
                ScriptedResult::Error => Err(std::fmt::Error),
                ScriptedResult::Hang => std::future::pending().await,
            }
        }
    }

    /// Runs the loop for `seconds`. Returns the lookup times in milliseconds from the start, and
    /// the final endpoints.
    async fn run_for(seconds: u64, answers: &[ScriptedResult]) -> (Vec<u128>, Vec<String>) {
        let endpoints: Endpoints = Balancer::new("products", &client::EndpointConfig::default(), "DNS", Vec::new()).unwrap().endpoints();
        let (lookups, started) = (Arc::<Mutex<Vec<Instant>>>::default(), Instant::now());
        let registry = ScriptedRegistry { results: answers.to_vec().into(), lookups: lookups.clone() };
        let resolved = ResolvedEndpoints::new("products", "DNS", 10, endpoints.clone());
        let running = run(registry, resolved, Config::default(), || 0.5);
        assert!(tokio::time::timeout(Duration::from_secs(seconds), running).await.is_err());
        let lookups = lookups.lock().iter().map(|at| at.duration_since(started).as_millis()).collect();
        (lookups, endpoints.status().into_iter().map(|status| status.address).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn poll_interval_follows_ttl_within_bounds() {
        for (ttl, seconds) in [(0, 1), (7, 7), (86_400, 30)] {
            let (lookups, _) = run_for(65, &[ScriptedResult::Addresses(&["a:1"], ttl)]).await;
            let gaps: Vec<_> = lookups.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.abs_diff(seconds * 1_000) <= 10), "{ttl}: {gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_lookups_keep_endpoints_and_back_off() {
        for bad in [ScriptedResult::Error, ScriptedResult::Addresses(&[], 1)] {
            let (lookups, known) = run_for(30, &[ScriptedResult::Addresses(&["a:1", "b:1"], 1), bad]).await;
            assert_eq!(known, ["a:1", "b:1"]);
            let gaps: Vec<_> = lookups.windows(2).map(|pair| pair[1] - pair[0]).take(8).collect();
            for (gap, expected) in gaps.iter().zip([1_000, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
                assert!(gap.abs_diff(expected) <= 10, "{gaps:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_lookup_times_out_and_is_retried() {
        let (_, known) =
            run_for(15, &[ScriptedResult::Hang, ScriptedResult::Addresses(&["a:1"], 1), ScriptedResult::Addresses(&["a:1", "c:1"], 1)])
                .await;
        assert_eq!(known, ["a:1", "c:1"]);
    }
}
