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
use palisade_resilience::{jitter, task};
use palisade_transport::client::balance::Endpoints;

pub use config::{Config, InvalidConfig};
pub use upstream::{InvalidUpstream, UpstreamUrl};

/// Spawns a task that updates `endpoints` of `target` from its registry until the guard is dropped.
/// Returns `None` for a static list. Must be called within a tokio runtime.
pub fn spawn_resolver(target: &'static str, upstream: UpstreamUrl, config: &Config, endpoints: Endpoints) -> Option<DropGuard> {
    let resolved_endpoints = |registry| ResolvedEndpoints::new(target, registry, config.max_endpoints, endpoints);
    let registry = upstream.registry();
    let resolver: BoxFuture<'static, ()> = match upstream {
        UpstreamUrl::List(_) => return None,
        UpstreamUrl::Dns(dns_target) => {
            poll::run(Dns::new(dns_target), resolved_endpoints(registry), config.clone(), jitter::random_unit).boxed()
        }
        UpstreamUrl::Etcd(location) => etcd::watch::run(location, resolved_endpoints(registry), jitter::random_unit).boxed(),
    };
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    drop(task::spawn(async move { stop.run_until_cancelled(resolver).await }));
    Some(guard)
}
