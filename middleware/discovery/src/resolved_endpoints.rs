//! Resolved endpoints of one upstream: applies lookup results and keeps the last non-empty set
//! after a failure.

use std::{error::Error, future::Future, time::Duration};

use tokio::time::Instant;

use palisade_transport::client::{address::Address, balance::Endpoints};

/// Update interval of the age gauge.
const AGE_UPDATE_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum addresses per log line.
const MAX_LOGGED_ADDRESSES: usize = 8;

/// Endpoints of one upstream as resolved by its registry.
pub(super) struct ResolvedEndpoints {
    target: &'static str,
    registry: &'static str,
    max_endpoints: usize,
    endpoints: Endpoints,
    /// Sorted and deduplicated; empty until the first successful lookup.
    current: Vec<Address>,
    last_outcome: Outcome,
    /// Addresses above the limit in the last lookup.
    dropped_over_limit: usize,
    last_success_at: Instant,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Before the first lookup.
    Initial,
    Resolved,
    Empty,
    Failed,
}

struct Metrics {
    answered: metrics::Counter,
    empty: metrics::Counter,
    failed: metrics::Counter,
    invalid: metrics::Counter,
    age: metrics::Gauge,
}

impl ResolvedEndpoints {
    pub(super) fn new(target: &'static str, registry: &'static str, most: usize, endpoints: Endpoints) -> Self {
        let resolutions = |outcome: &'static str| palisade_resilience::counter!("palisade.discovery.resolutions", "target" => target, "outcome" => outcome);
        let metrics = Metrics {
            answered: resolutions("ok"),
            empty: resolutions("empty"),
            failed: resolutions("failed"),
            invalid: palisade_resilience::counter!("palisade.discovery.invalid_entries", "target" => target),
            age: palisade_resilience::gauge!("palisade.discovery.last_success_age", "target" => target),
        };
        let (known, last, answered_at) = (Vec::new(), Outcome::Initial, Instant::now());
        let found = Self {
            target,
            registry,
            max_endpoints: most,
            endpoints,
            current: known,
            last_outcome: last,
            dropped_over_limit: 0,
            last_success_at: answered_at,
            metrics,
        };
        found.record_age();
        found
    }

    /// Applies a lookup with `addresses` and the number of invalid entries. Returns `false` for an
    /// empty set, which is not applied.
    pub(super) fn apply(&mut self, mut addresses: Vec<Address>, invalid: usize) -> bool {
        addresses.sort_by(|one, other| one.name().cmp(other.name()));
        addresses.dedup();
        // Sorted, so that the same addresses remain above the limit, whatever their order in the
        // lookup.
        let beyond = addresses.len().saturating_sub(self.max_endpoints);
        addresses.truncate(self.max_endpoints);
        self.metrics.invalid.increment((invalid + beyond) as u64);
        if addresses.is_empty() {
            self.metrics.empty.increment(1);
            self.log_outcome_change(Outcome::Empty, None);
            return false;
        }
        if beyond > 0 && self.dropped_over_limit == 0 {
            tracing::warn!(
                upstream = self.target,
                beyond,
                most = self.max_endpoints,
                "too many addresses in the registry, ignoring the excess"
            );
        }
        self.dropped_over_limit = beyond;
        self.metrics.answered.increment(1);
        self.record_confirmation();
        self.log_outcome_change(Outcome::Resolved, None);
        if addresses != self.current {
            self.replace(addresses);
        }
        true
    }

    /// Records a response without changes.
    pub(super) fn record_confirmation(&mut self) {
        self.last_success_at = Instant::now();
        self.record_age();
    }

    /// Records a failed lookup.
    pub(super) fn record_failure(&mut self, error: &(dyn Error + 'static)) {
        self.metrics.failed.increment(1);
        self.log_outcome_change(Outcome::Failed, Some(error));
    }

    /// Awaits `future` and updates the age gauge meanwhile.
    pub(super) async fn await_updating_age<F: Future>(&self, future: F) -> F::Output {
        let mut work = std::pin::pin!(future);
        loop {
            if let Ok(output) = tokio::time::timeout(AGE_UPDATE_INTERVAL, &mut work).await {
                return output;
            }
            self.record_age();
        }
    }

    fn record_age(&self) {
        self.metrics.age.set(self.last_success_at.elapsed().as_secs_f64());
    }

    fn replace(&mut self, addresses: Vec<Address>) {
        let added = join_names(addresses.iter().filter(|address| !self.current.contains(address)));
        let removed = join_names(self.current.iter().filter(|address| !addresses.contains(address)));
        tracing::info!(upstream = self.target, endpoints = addresses.len(), added, removed, "endpoints updated");
        self.endpoints.replace(addresses.clone());
        self.current = addresses;
    }

    /// Logs a change of the lookup outcome once.
    fn log_outcome_change(&mut self, to: Outcome, error: Option<&(dyn Error + 'static)>) {
        let from = std::mem::replace(&mut self.last_outcome, to);
        if from == to {
            return;
        }
        let (upstream, registry, endpoints) = (self.target, self.registry, self.current.len());
        match to {
            Outcome::Failed => tracing::warn!(upstream, registry, endpoints, error, "registry lookup failed, keeping last known endpoints"),
            Outcome::Empty => tracing::warn!(upstream, registry, endpoints, "registry returned no addresses, keeping last known endpoints"),
            Outcome::Resolved if from != Outcome::Initial => tracing::info!(upstream, registry, "registry lookups recovered"),
            Outcome::Resolved | Outcome::Initial => {}
        }
    }
}

fn join_names<'a>(addresses: impl Iterator<Item = &'a Address>) -> String {
    let names: Vec<_> = addresses.map(Address::name).collect();
    let shown = names[..names.len().min(MAX_LOGGED_ADDRESSES)].join(" ");
    if names.len() > MAX_LOGGED_ADDRESSES { format!("{shown} and {} more", names.len() - MAX_LOGGED_ADDRESSES) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_transport::client::{EndpointConfig, balance::Balancer};

    fn found(most: usize) -> (ResolvedEndpoints, Endpoints) {
        let endpoints = Balancer::new("products", &EndpointConfig::default(), "DNS", Vec::new()).unwrap().endpoints();
        (ResolvedEndpoints::new("products", "DNS", most, endpoints.clone()), endpoints)
    }

    fn addresses(names: &[&str]) -> Vec<Address> {
        names.iter().map(|name| Address::parse(&format!("http://{name}")).unwrap()).collect()
    }

    fn names(endpoints: &Endpoints) -> Vec<String> {
        endpoints.status().into_iter().map(|status| status.address).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn failed_or_empty_lookup_keeps_last_endpoints() {
        let (mut found, endpoints) = found(10);
        assert!(names(&endpoints).is_empty());
        found.record_failure(&std::fmt::Error);
        assert!(found.apply(addresses(&["b:1", "a:1", "b:1"]), 0));
        assert_eq!(names(&endpoints), ["a:1", "b:1"]);
        found.record_failure(&std::fmt::Error);
        assert!(!found.apply(Vec::new(), 3));
        assert_eq!(names(&endpoints), ["a:1", "b:1"]);
        assert!(found.apply(addresses(&["c:1"]), 0));
        assert_eq!(names(&endpoints), ["c:1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn excess_addresses_are_dropped_deterministically() {
        let (mut found, endpoints) = found(2);
        for lookup in [["d:1", "a:1", "c:1", "b:1"], ["b:1", "c:1", "a:1", "e:1"]] {
            found.apply(addresses(&lookup), 0);
            assert_eq!(names(&endpoints), ["a:1", "b:1"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lookup_metrics_show_outcome_and_age() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let prometheus = recorder.handle();
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let (mut found, _endpoints) = found(1);
        found.apply(addresses(&["a:1", "b:1"]), 1);
        found.apply(Vec::new(), 0);
        found.record_failure(&std::fmt::Error);
        found.await_updating_age(tokio::time::sleep(Duration::from_millis(3_500))).await;
        let lines = [
            "palisade_lb_endpoints{target=\"products\"} 1",
            "palisade_discovery_resolutions{target=\"products\",outcome=\"ok\"} 1",
            "palisade_discovery_resolutions{target=\"products\",outcome=\"empty\"} 1",
            "palisade_discovery_resolutions{target=\"products\",outcome=\"failed\"} 1",
            "palisade_discovery_invalid_entries{target=\"products\"} 2",
            "palisade_discovery_last_success_age{target=\"products\"} 3",
        ];
        for line in lines {
            assert!(prometheus.render().contains(&format!("{line}\n")), "{line} in {}", prometheus.render());
        }
    }
}
