//! Asking again and again, for a registry that does not call by itself: as often as its answers allow, and not all at the same moment.

use std::{error::Error, future::Future, time::Duration};

use super::{config::Config, resolved_endpoints::ResolvedEndpoints};
use crate::{
    client::address::Address,
    jitter::{self, RandomFn},
};

/// The pause after the first question in vain, twice as long each time: at a start the registry is often a moment away itself.
const INITIAL_BACKOFF: Duration = Duration::from_millis(200);
/// The longest pause between questions in vain.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How long an answer may take, with all that belongs to it.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The share by which pauses differ, so that clients that started together do not ask together.
const JITTER: f64 = 0.1;

/// Whoever can be asked.
pub(super) trait Resolve: Send {
    /// Why there is no answer.
    type Error: Error + Send + 'static;

    /// Asks once.
    fn resolve(&mut self) -> impl Future<Output = Result<Resolved, Self::Error>> + Send;
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// In any order.
    pub(super) addresses: Vec<Address>,
    /// How many more things were told that are no addresses.
    pub(super) invalid: usize,
    /// How long it may be believed.
    pub(super) ttl: Duration,
    /// A part of it is from an earlier answer, because nobody answered now: worth asking again soon.
    pub(super) stale_part: bool,
}

/// There was no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {LOOKUP_TIMEOUT:?}")]
struct TimedOut;

/// Asks for ever.
pub(super) async fn run(mut registry: impl Resolve, mut endpoints: ResolvedEndpoints, config: Config, random: RandomFn) {
    let (min, max) = (Duration::from_millis(config.min_refresh_ms), Duration::from_millis(config.max_refresh_ms));
    let mut failures = 0_u32;
    loop {
        let result = endpoints.await_updating_age(tokio::time::timeout(LOOKUP_TIMEOUT, registry.resolve())).await;
        let ttl = match result {
            Ok(Ok(resolved)) => endpoints.apply(resolved.addresses, resolved.invalid).then_some(if resolved.stale_part { min } else { resolved.ttl }),
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
            failures = 0;
            jitter::jittered(ttl.clamp(min, max), JITTER, random).max(min)
        } else {
            failures += 1;
            jitter::jittered(INITIAL_BACKOFF.saturating_mul(2_u32.saturating_pow(failures - 1)).min(MAX_BACKOFF), JITTER, random)
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
    use crate::client::{
        self,
        balance::{Balancer, Endpoints},
    };

    #[derive(Debug, Clone)]
    enum ScriptedResult {
        Addresses(&'static [&'static str], u64),
        Error,
        Hang,
    }

    /// Answers as it is told to; the last answer again and again. Remembers when it was asked.
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

    /// Runs for so long; when it asked, in milliseconds from the start, and the endpoints of the end.
    async fn run_for(seconds: u64, answers: &[ScriptedResult]) -> (Vec<u128>, Vec<String>) {
        let endpoints: Endpoints = Balancer::new("products", &client::Config::at("dns://products:1")).unwrap().endpoints();
        let (lookups, started) = (Arc::<Mutex<Vec<Instant>>>::default(), Instant::now());
        let registry = ScriptedRegistry { results: answers.to_vec().into(), lookups: lookups.clone() };
        let resolved = ResolvedEndpoints::new("products", "DNS", 10, endpoints.clone());
        let running = run(registry, resolved, Config::default(), || 0.5);
        assert!(tokio::time::timeout(Duration::from_secs(seconds), running).await.is_err());
        let lookups = lookups.lock().iter().map(|at| at.duration_since(started).as_millis()).collect();
        (lookups, endpoints.status().into_iter().map(|status| status.address).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn asks_again_when_the_answer_is_old_within_bounds() {
        for (ttl, seconds) in [(0, 1), (7, 7), (86_400, 30)] {
            let (lookups, _) = run_for(65, &[ScriptedResult::Addresses(&["a:1"], ttl)]).await;
            let gaps: Vec<_> = lookups.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.abs_diff(seconds * 1_000) <= 10), "{ttl}: {gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_or_an_empty_answer_keeps_the_last_good_set_and_the_pauses_grow() {
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
    async fn a_registry_that_hangs_is_given_up_and_asked_again() {
        let (_, known) = run_for(15, &[ScriptedResult::Hang, ScriptedResult::Addresses(&["a:1"], 1), ScriptedResult::Addresses(&["a:1", "c:1"], 1)]).await;
        assert_eq!(known, ["a:1", "c:1"]);
    }
}
