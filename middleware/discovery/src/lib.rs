//! Service discovery: resolves the endpoints of an upstream through DNS, SRV or etcd, and registers
//! services in etcd.
//!
//! A client with a `url` of `dns://…`, `srv://…` or `etcd://…` has one resolver task, which ends
//! with the client. It updates the endpoints of the load balancer: a new endpoint receives calls, a
//! retained one keeps its connection and statistics, a removed one finishes its calls. A failed or
//! empty lookup changes nothing: the last known endpoints most likely still exist, and the breaker
//! avoids a dead endpoint long before a registry reports it.
//!
//! Registry data is untrusted: addresses are validated and their number is limited.

mod config;
mod dns;
mod etcd;
mod poll;
pub mod registration;
mod resolved_endpoints;
mod upstream;

/// Generated client of the used subset of the etcd v3 API.
mod proto {
    #![expect(unreachable_pub, reason = "generated code")]
    tonic::include_proto!("etcdserverpb");
}

use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{dns::Dns, resolved_endpoints::ResolvedEndpoints};
use palisade_resilience::{
    jitter,
    job::{self, Heartbeat},
    task,
};
use palisade_transport::client::balance::Endpoints;

pub use config::{Config, InvalidConfig};
pub use upstream::{InvalidUpstream, UpstreamUrl};

/// Spawns a task that updates `endpoints` of `target` from its registry until the guard is dropped.
/// Returns `None` for a static list. Must be called within a tokio runtime.
pub fn spawn_resolver(target: &'static str, upstream: UpstreamUrl, config: &Config, endpoints: Endpoints) -> Option<DropGuard> {
    if matches!(upstream, UpstreamUrl::List(_)) {
        return None;
    }
    let (config, stop) = (config.clone(), CancellationToken::new());
    let resolve = move |heartbeat: Heartbeat| -> BoxFuture<'static, job::Result> {
        let resolved = ResolvedEndpoints::new(target, upstream.registry(), config.max_endpoints, endpoints.clone());
        let following: BoxFuture<'static, ()> = match upstream.clone() {
            UpstreamUrl::List(_) => std::future::pending().boxed(),
            UpstreamUrl::Dns(dns) => poll::run(Dns::new(dns), resolved, config.clone(), jitter::random_unit).boxed(),
            UpstreamUrl::Etcd(location) => etcd::watch::run(location, resolved, jitter::random_unit).boxed(),
        };
        // A failed lookup is no failure of the job: it has metrics of its own.
        async move {
            heartbeat.idle(following).await;
            Ok(())
        }
        .boxed()
    };
    let guard = stop.clone().drop_guard();
    let heartbeat = Heartbeat::new(format!("discovery.{target}"));
    drop(task::spawn(async move { stop.run_until_cancelled(job::supervise(heartbeat, stop.clone(), resolve)).await }));
    Some(guard)
}
