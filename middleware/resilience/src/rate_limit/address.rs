//! Client address and rate limiting by it, applied before authentication, because verifying a token
//! costs more than rejecting a request.

use std::{net::IpAddr, sync::Arc};

use http::Request;
use serde::{Deserialize, Serialize};
use tower::Layer;

use super::{
    buckets::Buckets,
    key::{AddressKey, KeyExtractor, MissingKeys, RequestHead},
};
use crate::{
    caller::ip_prefix,
    context::Context,
    filter::{Filter, Predicate},
    method_table::Method,
    rejection::{Rejection, reasons},
    trusted_proxies::TrustedProxies,
};

/// Rate limits per IP address. Not used for the methods of gRPC ports, where many service replicas
/// share few addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AddressConfig {
    /// Sustained rate per IP address (IPv6: per /64 prefix), requests per second. Excess requests
    /// are rejected. 0 disables.
    pub per_second: u32,
    /// Burst size: maximum number of requests that an idle address may send at once. 0 disables the
    /// limit.
    pub burst: u32,
    /// Sustained rate per IP address of constant documents, and as much of health checks and
    /// reflection, requests per second. They have a limit of their own, on HTTP and gRPC ports. 0
    /// disables.
    pub public_per_second: u32,
    /// Burst size of these requests. 0 disables their limit.
    pub public_burst: u32,
    /// Trusted proxies: IP addresses and networks (`10.0.0.0/8`), separated by commas. Their
    /// `x-forwarded-for` and `x-forwarded-proto` determine the client address and the scheme.
    /// Without it all clients behind a proxy share one limit.
    pub trusted_proxies: String,
}

impl Default for AddressConfig {
    fn default() -> Self {
        Self { per_second: 10_000, burst: 20_000, public_per_second: 500, public_burst: 1_000, trusted_proxies: String::new() }
    }
}

impl AddressConfig {
    /// Parses the trusted proxies. The error is the invalid text.
    pub fn proxies(&self) -> Result<TrustedProxies, String> {
        TrustedProxies::parse(&self.trusted_proxies)
    }
}

/// Determines the address of the client ([`Context::client_address`]) and limits its rate. Placed
/// before authentication and every wait.
///
/// The server of palisade-transport inserts the peer address. With the feature `axum`,
/// `axum::serve` does as well, if the service is made by
/// `Router::into_make_service_with_connect_info::<SocketAddr>`. Requests without an address share
/// one bucket ([`LimitKey::Missing`](super::LimitKey::Missing)).
///
/// ```
/// use palisade_resilience::{
///     caller::Peer,
///     rate_limit::{AddressConfig, AddressLimitLayer},
/// };
/// # use tower::{Layer, ServiceExt, service_fn};
/// # tokio_test::block_on(async {
/// let handler = service_fn(async |_| Ok::<_, std::convert::Infallible>("done"));
/// let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
/// let service = AddressLimitLayer::new(&config).layer(handler);
/// let mut request = http::Request::new(());
/// // Set by `server::accept` in a server.
/// request.extensions_mut().insert(Peer("192.0.2.1:4711".parse().unwrap()));
/// assert!(service.clone().oneshot(request.clone()).await.is_ok());
/// assert!(service.oneshot(request).await.is_err());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct AddressLimitLayer(Arc<Limit>);

#[derive(Debug)]
struct Limit {
    /// Limit of requests that are neither of the others.
    general: Option<Buckets>,
    documents: Option<Buckets>,
    infrastructure: Option<Buckets>,
    key: AddressKey,
    missing: MissingKeys,
    shed: metrics::Counter,
}

impl AddressLimitLayer {
    /// Creates the configured limits. `config` must be valid.
    pub fn new(config: &AddressConfig) -> Self {
        Self::with_general_limit(Buckets::new(config.per_second, config.burst), config)
    }

    /// Creates only the limits of constant documents and infrastructure.
    pub fn public_only(config: &AddressConfig) -> Self {
        Self::with_general_limit(None, config)
    }

    fn with_general_limit(general: Option<Buckets>, config: &AddressConfig) -> Self {
        let public = || Buckets::new(config.public_per_second, config.public_burst);
        let shed = crate::counter!("palisade.requests.shed", "reason" => "address_limit");
        let (documents, infrastructure) = (public(), public());
        let key = AddressKey { proxies: config.proxies().unwrap_or_default() };
        let missing = MissingKeys::new(key.name());
        Self(Arc::new(Limit { general, documents, infrastructure, key, missing, shed }))
    }
}

impl Limit {
    fn check(&self, method: Option<&Method>, client: Option<IpAddr>) -> Result<(), Rejection> {
        let buckets = match method {
            Some(method) if method.infrastructure => &self.infrastructure,
            Some(method) if method.static_content => &self.documents,
            _ => &self.general,
        };
        let Some(buckets) = buckets else { return Ok(()) };
        if client.is_none() {
            self.missing.record();
        }
        buckets.take(client.map(ip_prefix), 1).map(drop).map_err(|wait| {
            self.shed.increment(1);
            Rejection::new(&reasons::RATE_LIMITED, "too many requests from this address").with_retry_after(wait)
        })
    }
}

impl<S> Layer<S> for AddressLimitLayer {
    type Service = Filter<S, Self>;

    fn layer(&self, inner: S) -> Filter<S, Self> {
        Filter::new(inner, self.clone())
    }
}

impl Predicate for AddressLimitLayer {
    fn check<B>(&self, mut request: Request<B>) -> Result<Request<B>, Rejection> {
        let client = self.0.key.client(RequestHead::of(&request));
        let context = request.extensions_mut().get_mut::<Context>();
        let method = context.as_ref().and_then(|context| context.method);
        if let Some(context) = context {
            context.client_address = client.or(context.client_address);
        }
        self.0.check(method, client)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use tower::ServiceExt;

    use super::*;
    use crate::{caller::Peer, method_table::Access};

    #[tokio::test]
    async fn address_limit_is_per_address() {
        let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
        let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let service = AddressLimitLayer::new(&config).layer(inner);
        let send = |peer: &str| {
            let mut request = Request::new(());
            request.extensions_mut().insert(Peer(peer.parse().unwrap()));
            service.clone().oneshot(request)
        };
        assert!(send("192.0.2.1:1").await.is_ok());
        assert_eq!(send("192.0.2.1:2").await.unwrap_err().reason(), &reasons::RATE_LIMITED);
        assert!(send("192.0.2.2:1").await.is_ok());
    }

    #[tokio::test]
    async fn address_limit_reads_connect_info() {
        let config = AddressConfig { per_second: 1, burst: 1, ..AddressConfig::default() };
        let inner = tower::service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(())));
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let service = metrics::with_local_recorder(&recorder, || AddressLimitLayer::new(&config).layer(inner));
        let send = |peer: Option<&str>| {
            let mut request = Request::new(());
            if let Some(peer) = peer {
                request.extensions_mut().insert(axum::extract::ConnectInfo::<std::net::SocketAddr>(peer.parse().unwrap()));
            }
            service.clone().oneshot(request)
        };
        assert!(send(Some("192.0.2.1:1")).await.is_ok());
        assert!(send(Some("192.0.2.1:2")).await.is_err());
        assert!(send(Some("192.0.2.2:1")).await.is_ok());
        // Without an address: one bucket for all, and a metric.
        assert!(send(None).await.is_ok());
        assert!(send(None).await.is_err());
        let text = recorder.handle().render();
        assert!(text.contains("palisade_rate_limit_missing_keys{key=\"address\"} 2"), "{text}");
    }

    #[tokio::test]
    async fn documents_and_health_have_limits_of_their_own() {
        static DOCUMENT: Method = Method::http("GET", "/docs", Access::Public).static_content();
        static HEALTH: Method = Method::grpc("/h.H/Check", Access::Public).infrastructure();
        static ORDER: Method = Method::http("POST", "/orders", Access::Public);
        let config = AddressConfig { per_second: 1, burst: 1, public_per_second: 1, public_burst: 2, ..AddressConfig::default() };
        // Each limit is used up without an effect on the others.
        for (layer, limited) in [
            (AddressLimitLayer::new(&config), [(&DOCUMENT, 2), (&HEALTH, 2), (&ORDER, 1)]),
            (AddressLimitLayer::public_only(&config), [(&DOCUMENT, 2), (&HEALTH, 2), (&ORDER, 9)]),
        ] {
            let service = layer.layer(tower::service_fn(async |request: Request<()>| {
                let address = Context::of(&request).unwrap().client_address;
                Ok::<_, Infallible>(Response::new(address))
            }));
            for (method, allowed) in limited {
                for count in 0..9 {
                    let mut request = Request::new(());
                    request.extensions_mut().insert(Peer("192.0.2.1:1".parse().unwrap()));
                    request.extensions_mut().insert(Context { method: Some(method), ..Context::background() });
                    let answer = service.clone().oneshot(request).await;
                    assert_eq!(answer.is_ok(), count < allowed, "{method:?}, request {count}");
                    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.body().is_some()));
                }
            }
        }
    }
}
