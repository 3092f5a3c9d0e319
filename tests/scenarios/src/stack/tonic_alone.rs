//! tonic without other layers: its timeouts, limits and load balancing.

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use axum::Router;
use futures_util::{FutureExt, future::BoxFuture};
use http::{Request, Response, Uri};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    service::Routes,
    transport::{Channel, Endpoint, Server},
};
use tower::{
    BoxError, Service,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{Constant, Load},
    service_fn,
    util::{BoxCloneSyncService, MapErr},
};

use super::{Client, SetEndpoints, Stack};
use crate::{
    format::{ClientPolicy, Need, ServerPolicy},
    network::{Listener, connect_uri},
};

/// Waiting requests of a channel, as in `Channel::balance_channel`.
const BUFFER: usize = 1024;

/// `tonic::transport::{Channel, Server}` with their own settings.
#[derive(Debug, Clone, Copy, Default)]
pub struct TonicAlone;

impl Stack for TonicAlone {
    fn name(&self) -> &'static str {
        "tonic alone"
    }

    fn provides(&self, need: Need) -> bool {
        matches!(
            need,
            Need::AttemptTimeout
                | Need::CallTimeout
                | Need::Balancing
                | Need::EndpointUpdates
                | Need::LoadShedding
                | Need::ServerDeadline
                | Need::Drain
                | Need::ConnectionAge
        )
    }

    fn client(&self, urls: &[String], policy: &ClientPolicy) -> anyhow::Result<Client> {
        let timeout = policy.attempt_timeout_ms.into_iter().chain(policy.call_timeout_ms).min();
        let connect_timeout = Duration::from_millis(policy.connect_timeout_ms);
        let channel = move |url: &str| {
            let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(connect_timeout);
            let endpoint = timeout.into_iter().fold(endpoint, |endpoint, ms| endpoint.timeout(Duration::from_millis(ms)));
            // Without a load the choice is random, as in `Channel::balance_channel`.
            anyhow::Ok(Constant::new(lazy(&endpoint), 0))
        };
        let (service, set_endpoints) = balanced(urls, channel)?;
        let service = MapErr::new(service, Status::from_error as fn(BoxError) -> Status);
        Ok(Client { service: BoxCloneSyncService::new(service), set_endpoints })
    }

    fn serve(
        &self,
        listener: Listener,
        policy: &ServerPolicy,
        handler: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<BoxFuture<'static, ()>> {
        let mut server = server(policy);
        if let Some(limit) = policy.max_in_flight {
            server = server.concurrency_limit_per_connection(limit as usize).load_shed(true);
        }
        let incoming = listener.map(|accepted| accepted.map(|(io, _)| io));
        let serving = server.add_routes(Routes::from(handler)).serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned());
        Ok(serving.map(drop).boxed())
    }
}

/// Server of tonic with its own timeout and connection age.
pub(super) fn server(policy: &ServerPolicy) -> Server {
    let mut server = Server::builder();
    if let Some(ms) = policy.default_deadline_ms.into_iter().chain(policy.max_deadline_ms).min() {
        server = server.timeout(Duration::from_millis(ms));
    }
    if let Some(ms) = policy.max_connection_age_ms {
        server = server.max_connection_age(Duration::from_millis(ms));
    }
    server
}

/// A client without the layers around it.
pub(super) type Balanced = BoxCloneSyncService<Request<Body>, Response<Body>, BoxError>;

/// Builds what `Channel::balance_channel` builds, which accepts no connector: power of two choices
/// among lazy channels.
pub(super) fn balanced<S>(
    urls: &[String],
    channel: impl Fn(&str) -> anyhow::Result<S> + Send + Sync + 'static,
) -> anyhow::Result<(Balanced, SetEndpoints)>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send> + Load<Metric: Debug> + Send + 'static,
    S::Error: Into<BoxError>,
{
    let (changes, received) = mpsc::unbounded_channel();
    let mut known = BTreeSet::new();
    for url in urls {
        let _ = changes.send(Change::Insert(url.clone(), channel(url)?));
        known.insert(url.clone());
    }
    let known = Mutex::new(known);
    let set_endpoints = move |urls: &[String]| {
        let wanted: BTreeSet<_> = urls.iter().cloned().collect();
        let mut known = known.lock();
        for url in wanted.difference(&known) {
            if let Ok(channel) = channel(url) {
                let _ = changes.send(Change::Insert(url.clone(), channel));
            }
        }
        for url in known.difference(&wanted) {
            let _ = changes.send(Change::Remove(url.clone()));
        }
        *known = wanted;
    };
    let discovered = UnboundedReceiverStream::new(received).map(Ok::<_, BoxError>);
    let service = Buffer::new(Balance::new(discovered), BUFFER);
    Ok((BoxCloneSyncService::new(service), Arc::new(set_endpoints)))
}

pub(super) fn lazy(endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(service_fn(|uri: Uri| async move { connect_uri(&uri) }))
}
