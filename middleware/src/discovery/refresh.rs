//! Asking again and again, for a registry that does not call by itself: as often as its answers allow, and not all at the same moment.

use std::{error::Error, future::Future, time::Duration};

use super::{config::Config, found::Found};
use crate::{
    client::address::Address,
    jitter::{self, Draw},
};

/// The pause after the first question in vain, twice as long each time: at a start the registry is often a moment away itself.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause between questions in vain.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take, with all that belongs to it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The share by which pauses differ, so that clients that started together do not ask together.
const SPREAD: f64 = 0.1;

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
    pub(super) refused: usize,
    /// How long it may be believed.
    pub(super) good_for: Duration,
    /// A part of it is from an earlier answer, because nobody answered now: worth asking again soon.
    pub(super) partial: bool,
}

/// There was no answer in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {ANSWER_WITHIN:?}")]
struct TimedOut;

/// Asks for ever.
pub(super) async fn run(mut registry: impl Resolve, mut found: Found, config: Config, draw: Draw) {
    let (min, max) = (Duration::from_millis(config.min_refresh_ms), Duration::from_millis(config.max_refresh_ms));
    let mut in_vain = 0_u32;
    loop {
        let answer = found.during(tokio::time::timeout(ANSWER_WITHIN, registry.resolve())).await;
        let good_for = match answer {
            Ok(Ok(told)) => found.answered(told.addresses, told.refused).then_some(if told.partial { min } else { told.good_for }),
            Ok(Err(error)) => {
                found.failed(&error);
                None
            }
            Err(_) => {
                found.failed(&TimedOut);
                None
            }
        };
        let pause = if let Some(good_for) = good_for {
            in_vain = 0;
            jitter::around(good_for.clamp(min, max), SPREAD, draw).max(min)
        } else {
            in_vain += 1;
            jitter::around(FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(in_vain - 1)).min(MAX_PAUSE), SPREAD, draw)
        };
        found.during(tokio::time::sleep(pause)).await;
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
    enum Says {
        Addresses(&'static [&'static str], u64),
        Error,
        Nothing,
    }

    /// Answers as it is told to; the last answer again and again. Remembers when it was asked.
    struct Told {
        answers: VecDeque<Says>,
        asked: Arc<Mutex<Vec<Instant>>>,
    }

    impl Resolve for Told {
        type Error = std::fmt::Error;

        async fn resolve(&mut self) -> Result<Resolved, std::fmt::Error> {
            self.asked.lock().push(Instant::now());
            let says = if self.answers.len() > 1 { self.answers.pop_front() } else { self.answers.front().cloned() };
            match says.unwrap() {
                Says::Addresses(names, seconds) => Ok(Resolved {
                    addresses: names.iter().map(|name| Address::parse(&format!("http://{name}")).unwrap()).collect(),
                    refused: 0,
                    good_for: Duration::from_secs(seconds),
                    partial: false,
                }),
                Says::Error => Err(std::fmt::Error),
                Says::Nothing => std::future::pending().await,
            }
        }
    }

    /// Runs for so long; when it asked, in milliseconds from the start, and the endpoints of the end.
    async fn run_for(seconds: u64, answers: &[Says]) -> (Vec<u128>, Vec<String>) {
        let endpoints: Endpoints = Balancer::new("products", &client::Config::at("dns://products:1")).unwrap().endpoints();
        let (asked, started) = (Arc::<Mutex<Vec<Instant>>>::default(), Instant::now());
        let told = Told { answers: answers.to_vec().into(), asked: asked.clone() };
        let found = Found::new("products", "DNS", 10, endpoints.clone());
        let running = run(told, found, Config::default(), || 0.5);
        assert!(tokio::time::timeout(Duration::from_secs(seconds), running).await.is_err());
        let asked = asked.lock().iter().map(|at| at.duration_since(started).as_millis()).collect();
        (asked, endpoints.status().into_iter().map(|status| status.address).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn asks_again_when_the_answer_is_old_within_bounds() {
        for (good_for, seconds) in [(0, 1), (7, 7), (86_400, 30)] {
            let (asked, _) = run_for(65, &[Says::Addresses(&["a:1"], good_for)]).await;
            let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap.abs_diff(seconds * 1_000) <= 10), "{good_for}: {gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_or_an_empty_answer_keeps_the_last_good_set_and_the_pauses_grow() {
        for bad in [Says::Error, Says::Addresses(&[], 1)] {
            let (asked, known) = run_for(30, &[Says::Addresses(&["a:1", "b:1"], 1), bad]).await;
            assert_eq!(known, ["a:1", "b:1"]);
            let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).take(8).collect();
            for (gap, wanted) in gaps.iter().zip([1_000, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
                assert!(gap.abs_diff(wanted) <= 10, "{gaps:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_hangs_is_given_up_and_asked_again() {
        let (_, known) = run_for(15, &[Says::Nothing, Says::Addresses(&["a:1"], 1), Says::Addresses(&["a:1", "c:1"], 1)]).await;
        assert_eq!(known, ["a:1", "c:1"]);
    }
}
