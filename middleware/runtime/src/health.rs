//! Readiness: periodic probes of dependencies, and the draining state.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt, TryFutureExt,
    future::{BoxFuture, ready, select_ok},
};

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use palisade_resilience::{backoff::Backoff, grpc_status, job};
use palisade_transport::client::{address::Address, balance::Endpoints};

/// Probe interval of a healthy dependency.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Probe interval of an unhealthy dependency. Short, to detect recovery quickly.
const PROBE_INTERVAL_WHILE_DOWN: Duration = Duration::from_millis(200);
/// Initial probe backoff at startup, doubled after each failure, because dependencies often start
/// at the same time.
const INITIAL_BACKOFF: Duration = Duration::from_millis(10);
/// Time limit of one probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Consecutive failures after which a healthy dependency counts as unhealthy.
const UNHEALTHY_THRESHOLD: u32 = 2;
/// Maximum number of endpoints probed per dependency.
const MAX_PROBED_ENDPOINTS: usize = 5;

/// Readiness of a service and its dependencies.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<State>);

#[derive(Debug)]
struct State {
    dependencies: RwLock<Vec<Dependency>>,
    draining: AtomicBool,
    ready: watch::Sender<bool>,
    /// `palisade.ready`.
    shown: metrics::Gauge,
}

/// Last probe result of a dependency.
#[derive(Debug, Clone, Serialize)]
pub struct Dependency {
    /// Name, e.g. `postgresql`.
    pub name: &'static str,
    /// Whether the service is not ready without it.
    pub required: bool,
    /// Whether the last probe succeeded.
    pub ok: bool,
    /// Reason of the failure. Never contains an address or the text of a driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// `palisade.dependency.up`.
    #[serde(skip)]
    up: metrics::Gauge,
}

/// Body of `/readyz`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Whether the service accepts requests.
    pub ready: bool,
    /// Whether the process is shutting down.
    pub draining: bool,
    /// All dependencies.
    pub dependencies: Vec<Dependency>,
}

impl Default for Readiness {
    fn default() -> Self {
        let shown = palisade_resilience::gauge!("palisade.ready");
        shown.set(0.0);
        let (dependencies, draining, ready) = (RwLock::default(), AtomicBool::new(false), watch::Sender::new(false));
        Self(Arc::new(State { dependencies, draining, ready, shown }))
    }
}

impl Readiness {
    /// Runs `probe` once per second until `shutdown`. The dependency counts as unhealthy until its
    /// first success.
    pub fn watch<F, Fut>(&self, name: &'static str, required: bool, shutdown: CancellationToken, mut probe: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send,
    {
        let index = {
            let required_label = if required { "true" } else { "false" };
            let up = palisade_resilience::gauge!("palisade.dependency.up", "dependency" => name, "required" => required_label);
            up.set(0.0);
            let mut dependencies = self.0.dependencies.write();
            dependencies.push(Dependency { name, required, ok: false, reason: Some("not probed yet".to_owned()), up });
            dependencies.len() - 1
        };
        self.publish();
        let readiness = self.clone();
        let watch = async move {
            let (mut failures, mut backoff) = (UNHEALTHY_THRESHOLD, Backoff::new(INITIAL_BACKOFF, PROBE_INTERVAL_WHILE_DOWN));
            loop {
                // A probe that panics has failed, and is called again.
                let probe = &mut probe;
                let result = match job::catch(async move { tokio::time::timeout(PROBE_TIMEOUT, probe()).await }).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err("probe timed out".to_owned()),
                    Err(panicked) => {
                        tracing::error!(dependency = name, error = &panicked as &dyn std::error::Error, "probe failed");
                        Err("probe panicked".to_owned())
                    }
                };
                match result {
                    Ok(()) => {
                        (failures, backoff) = (0, Backoff::new(PROBE_INTERVAL_WHILE_DOWN, PROBE_INTERVAL_WHILE_DOWN));
                        readiness.set(index, None);
                    }
                    Err(reason) => {
                        failures = failures.saturating_add(1);
                        if failures >= UNHEALTHY_THRESHOLD {
                            readiness.set(index, Some(reason));
                        }
                    }
                }
                let interval = if failures == 0 { PROBE_INTERVAL } else { backoff.next_wait() };
                tokio::time::sleep(interval).await;
            }
        };
        drop(palisade_resilience::task::spawn(async move { shutdown.run_until_cancelled(watch).await }));
    }

    fn set(&self, index: usize, reason: Option<String>) {
        {
            let mut dependencies = self.0.dependencies.write();
            let dependency = &mut dependencies[index];
            let ok = reason.is_none();
            if dependency.ok != ok {
                tracing::info!(dependency = dependency.name, ok, reason = reason.as_deref().unwrap_or(""), "dependency status changed");
            }
            dependency.up.set(f64::from(u8::from(ok)));
            dependency.ok = ok;
            dependency.reason = reason;
        }
        self.publish();
    }

    /// Marks the service as shutting down: not ready from this call on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.publish();
    }

    fn publish(&self) {
        let ready = self.report().ready;
        self.0.shown.set(f64::from(u8::from(ready)));
        self.0.ready.send_if_modified(|last| std::mem::replace(last, ready) != ready);
    }

    /// Subscribes to readiness: the present state, and its changes.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        // Without dependencies nothing else publishes the first state.
        self.publish();
        self.0.ready.subscribe()
    }

    /// Returns the current report.
    pub fn report(&self) -> Report {
        let dependencies = self.0.dependencies.read().clone();
        let draining = self.0.draining.load(Ordering::Acquire);
        let ready = !draining && dependencies.iter().all(|dependency| dependency.ok || !dependency.required);
        Report { ready, draining, dependencies }
    }
}

/// Creates a gRPC health probe (`grpc.health.v1`) for [`Readiness::watch`]. It checks some of
/// `endpoints`, of which one healthy endpoint suffices, over separate connections, so that its
/// failures do not delay calls.
pub fn grpc_probe(endpoints: Endpoints) -> impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + 'static {
    let clients = Mutex::new(Vec::<(Address, HealthClient<Channel>)>::new());
    move || {
        let mut clients = clients.lock();
        let connect = |address: Address| match clients.iter().find(|(known, _)| *known == address) {
            Some(known) => known.clone(),
            None => (address.clone(), HealthClient::new(endpoints.connection(&address))),
        };
        let selected: Vec<_> = endpoints.sample_addresses(MAX_PROBED_ENDPOINTS).into_iter().map(connect).collect();
        clients.clone_from(&selected);
        if selected.is_empty() {
            return ready(Err(format!("no endpoint known, waiting for {}", endpoints.registry()))).boxed();
        }
        let checks: Vec<_> = selected.into_iter().map(|(_, client)| Box::pin(check_serving(client))).collect();
        select_ok(checks).map_ok(|((), _others)| ()).boxed()
    }
}

/// Calls `recovered` at the first success of `probe` after it failed often enough to count as
/// unhealthy.
pub fn on_recovery<F, Fut>(
    mut probe: F,
    recovered: impl Fn() + Clone + Send + 'static,
) -> impl FnMut() -> BoxFuture<'static, Result<(), String>> + Send + 'static
where
    F: FnMut() -> Fut + Send + 'static,
    Fut: Future<Output = Result<(), String>> + Send + 'static,
{
    let failures = Arc::new(AtomicU32::new(0));
    move || {
        // Counted in advance: a probe that times out is dropped.
        let earlier = failures.fetch_add(1, Ordering::Relaxed);
        let (result, failures, recovered) = (probe(), failures.clone(), recovered.clone());
        async move {
            result.await?;
            failures.store(0, Ordering::Relaxed);
            if earlier >= UNHEALTHY_THRESHOLD {
                recovered();
            }
            Ok(())
        }
        .boxed()
    }
}

async fn check_serving(mut client: HealthClient<Channel>) -> Result<(), String> {
    let response = client.check(HealthCheckRequest::default()).await;
    let answer = response.map_err(|status| format!("health check returned {}", grpc_status::name(status.code())))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        _ => Err("not serving".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use tonic::transport::{Server, server::TcpIncoming};

    use super::*;
    use palisade_transport::client::{EndpointConfig, balance::Balancer};

    #[tokio::test(start_paused = true)]
    async fn probe_interval_depends_on_dependency_state() {
        let (probes, started) = (Arc::new(AtomicU32::new(0)), Instant::now());
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let count = probes.clone();
        readiness.watch("database", true, shutdown.clone(), move || {
            count.fetch_add(1, Ordering::Relaxed);
            let available = (35..5_000).contains(&started.elapsed().as_millis());
            async move { if available { Ok(()) } else { Err("connection refused".to_owned()) } }
        });
        let mut ready = readiness.subscribe();
        ready.wait_for(|ready| *ready).await.unwrap();
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        ready.wait_for(|ready| !*ready).await.unwrap();
        let before = probes.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(probes.load(Ordering::Relaxed) - before, 5);
        shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn dependency_recovers_after_its_probe_panicked() {
        let (readiness, shutdown, probes) = (Readiness::default(), CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let count = probes.clone();
        readiness.watch("database", true, shutdown.clone(), move || {
            let panics = count.fetch_add(1, Ordering::Relaxed) < 5;
            async move { if panics { panic!("a bug in the probe") } else { Ok(()) } }
        });
        readiness.subscribe().wait_for(|ready| *ready).await.unwrap();
        assert_eq!(probes.load(Ordering::Relaxed), 6);
        shutdown.cancel();
    }

    #[tokio::test]
    async fn readiness_without_dependencies_is_announced() {
        let readiness = Readiness::default();
        let mut ready = readiness.subscribe();
        assert!(readiness.report().ready && *ready.borrow_and_update());
        readiness.drain();
        assert!(ready.has_changed().unwrap() && !*ready.borrow_and_update());
        assert!(!*readiness.subscribe().borrow());
        let waiting = Readiness::default();
        waiting.watch("database", true, CancellationToken::new(), std::future::pending);
        assert!(!*waiting.subscribe().borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn recovery_follows_repeated_failures_only() {
        let recoveries = Arc::new(AtomicU32::new(0));
        let count = recoveries.clone();
        let mut results = ["ok", "failed", "ok", "failed", "hangs", "ok", "ok"].into_iter();
        let next = move || {
            let result = results.next().unwrap();
            async move {
                match result {
                    "ok" => Ok(()),
                    "hangs" => std::future::pending().await,
                    _ => Err(result.to_owned()),
                }
            }
        };
        let mut probe = on_recovery(next, move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let mut seen = Vec::new();
        for _ in 0..7 {
            let _ = tokio::time::timeout(PROBE_TIMEOUT, probe()).await;
            seen.push(recoveries.load(Ordering::Relaxed));
        }
        assert_eq!(seen, [0, 0, 0, 0, 0, 1, 1]);
    }

    #[tokio::test]
    async fn grpc_probe_needs_one_healthy_endpoint() {
        let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let (_reporter, service) = tonic_health::server::health_reporter();
        drop(palisade_resilience::task::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener))));
        let endpoints = |url: &str| {
            let addresses = Address::list(url.split(',')).unwrap();
            Balancer::new("health", &EndpointConfig::default(), "the configuration", addresses).unwrap().endpoints()
        };
        assert_eq!(grpc_probe(endpoints(&format!("http://{dead},http://{alive}")))().await, Ok(()));
        assert!(grpc_probe(endpoints(&format!("http://{dead}")))().await.is_err());
    }

    #[tokio::test]
    async fn grpc_probe_uses_discovered_endpoint() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let alive = listener.local_addr().unwrap();
        let (_reporter, service) = tonic_health::server::health_reporter();
        drop(palisade_resilience::task::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener))));
        let endpoints = Balancer::new("health", &EndpointConfig::default(), "etcd", Vec::new()).unwrap().endpoints();
        let probe = grpc_probe(endpoints.clone());
        assert_eq!(probe().await, Err("no endpoint known, waiting for etcd".to_owned()));
        endpoints.set([format!("http://{alive}").as_str()]).unwrap();
        assert_eq!(probe().await, Ok(()));
    }
}
