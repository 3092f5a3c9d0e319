//! Where the endpoints of an upstream come from, if not from a list: DNS or etcd. And how a service tells etcd where it is.
//!
//! A client whose `url` is `dns://…`, `srv://…` or `etcd://…` is followed by one task, which ends with the client. What it finds goes to
//! the client's balancer: who joins is chosen from now on, who stays keeps its connection and what is known about it, who leaves finishes
//! its calls. A registry that fails, or knows nobody, changes nothing: those who were there most likely still are, and one that is dead is
//! left alone by its breaker long before a registry tells.
//!
//! What a registry says is not believed: addresses are checked, and there is a bound on how many there may be.

mod config;
mod dns;
mod etcd;
mod resolved_endpoints;
mod poll;
pub mod registration;
mod upstream;

use futures_util::{FutureExt, future::BoxFuture};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{dns::Dns, resolved_endpoints::ResolvedEndpoints};
use crate::{client::balance::Endpoints, jitter, task};

pub use config::{Config, InvalidConfig};
pub use upstream::InvalidUpstream;

pub(crate) use upstream::UpstreamUrl;

/// Keeps `endpoints` of `target` as its registry has them, until what is returned is dropped; `None` if `upstream` is a list, which stays as
/// it is. Must be called within a tokio runtime.
pub(crate) fn spawn_resolver(target: &'static str, upstream: UpstreamUrl, config: &Config, endpoints: Endpoints) -> Option<DropGuard> {
    let resolved_endpoints = |registry| ResolvedEndpoints::new(target, registry, config.max_endpoints, endpoints);
    let registry = upstream.registry();
    let resolver: BoxFuture<'static, ()> = match upstream {
        UpstreamUrl::List(_) => return None,
        UpstreamUrl::Dns(dns_target) => poll::run(Dns::new(dns_target), resolved_endpoints(registry), config.clone(), jitter::random_unit).boxed(),
        UpstreamUrl::Etcd(location) => etcd::watch::run(location, resolved_endpoints(registry), jitter::random_unit).boxed(),
    };
    let stop = CancellationToken::new();
    let guard = stop.clone().drop_guard();
    drop(task::spawn(async move { stop.run_until_cancelled(resolver).await }));
    Some(guard)
}
