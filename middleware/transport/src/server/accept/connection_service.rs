//! Service of one connection: adds the facts of the connection to each request, and counts the
//! request as in flight until the end of its response.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tower::{Service, ServiceExt, util::Oneshot};

use super::{
    connection_state::{ConnectionState, RequestGuard},
    data_rate::MinimumRate,
    request_body::{BodyPace, RequestBody},
    response_body::ResponseBody,
};
use crate::tls::PeerCertificateNames;
use palisade_resilience::{
    caller::Peer, refusal_pause::ConnectionRefusals, respond::Protocol, scheme::Scheme, streams::ConnectionDraining,
    trusted_proxies::TrustedProxies,
};

/// HSTS for two years, as required by the browsers' preload lists.
const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=63072000; includeSubDomains");
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Service of one connection.
#[derive(Debug)]
pub(super) struct ConnectionService<S> {
    pub(super) inner: S,
    pub(super) connection: Arc<ConnectionState>,
    pub(super) protocol: Protocol,
    pub(super) tls: bool,
    pub(super) peer: Peer,
    pub(super) names: Option<PeerCertificateNames>,
    pub(super) draining: ConnectionDraining,
    pub(super) refusals: ConnectionRefusals,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) body_rate: MinimumRate,
}

impl<S> ConnectionService<S> {
    /// Returns the scheme that the client used: that of the port, or as a trusted proxy in front of
    /// it says.
    fn scheme(&self, request: &Request<Incoming>) -> Scheme {
        let forwarded = || request.headers().get(FORWARDED_PROTO).is_some_and(|scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"));
        Scheme::of_port(self.tls || (self.trusted_proxies.contains(self.peer.0.ip()) && forwarded()))
    }
}

impl<S, B> hyper::service::Service<Request<Incoming>> for ConnectionService<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<ResponseBody<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<Oneshot<S, Request<RequestBody>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let http1 = request.version() < Version::HTTP_2;
        let guard = self.connection.start_request(http1);
        let pace = (self.protocol == Protocol::Grpc).then(BodyPace::default);
        let scheme = self.scheme(&request);
        let extensions = request.extensions_mut();
        extensions.insert(self.peer);
        extensions.insert(self.draining.clone());
        if !self.trusted_proxies.contains(self.peer.0.ip()) {
            // A connection of a proxy carries requests of many clients.
            extensions.insert(self.refusals.clone());
        }
        if scheme != Scheme::default() {
            extensions.insert(scheme);
        }
        if let Some(pace) = &pace {
            extensions.insert(pace.clone());
        }
        if let Some(names) = &self.names {
            extensions.insert(names.clone());
        }
        let http1 = http1.then(|| self.connection.clone());
        let request = request.map(|body| RequestBody::new(body, self.body_rate, pace, http1));
        let strict_transport = self.tls && self.protocol == Protocol::Http;
        ResponseFuture { inner: self.inner.clone().oneshot(request), guard: Some(guard), strict_transport }
    }
}

pin_project! {
    /// Response future of [`ConnectionService`].
    pub(super) struct ResponseFuture<F> {
        #[pin]
        inner: F,
        guard: Option<RequestGuard>,
        strict_transport: bool,
    }
}

impl<F, B> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
{
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if *this.strict_transport {
            response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
        }
        let guard = this.guard.take().expect("future polled after completion");
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            guard.connection().upgrade();
        }
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, guard))))
    }
}
