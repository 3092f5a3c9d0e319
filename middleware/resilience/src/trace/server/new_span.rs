//! Start of the SERVER span, with the attributes known from the request head.

use std::net::IpAddr;

use http::{HeaderValue, Request, Version, header, uri::Authority};
use tracing::{
    Span,
    field::{self, Empty},
};

use crate::{
    caller::peer_address,
    context::{Context, RequestId},
    method_table::Method,
    protocol::{Protocol, known_verb},
    scheme::Scheme,
    trusted_proxies::TrustedProxies,
};

/// Maximum length of an attribute value from the client, bytes. Longer ones are truncated.
const MAX_ATTRIBUTE_BYTES: usize = 256;

/// Parts of a request head that the span shows, copied and truncated: a held span must not keep the
/// buffer of a connection alive.
pub(super) struct Head {
    protocol: Protocol,
    method: Option<&'static Method>,
    request_id: Option<RequestId>,
    verb: &'static str,
    unknown_verb: Option<Box<str>>,
    /// `None` for a known gRPC method, which has it.
    path: Option<Box<str>>,
    authority: Option<Box<str>>,
    user_agent: Option<Box<str>>,
    peer: Option<IpAddr>,
    client: Option<IpAddr>,
    scheme: Scheme,
    version: Version,
}

impl Head {
    pub(super) fn of<B>(protocol: Protocol, proxies: &TrustedProxies, request: &Request<B>) -> Self {
        let context = Context::of(request);
        let method = context.and_then(|context| context.method);
        let is_http = protocol == Protocol::Http;
        let verb = known_verb(request.method());
        let peer = peer_address(request.extensions()).map(|peer| peer.ip().to_canonical());
        let user_agent = request.headers().get(header::USER_AGENT).filter(|_| is_http);
        Self {
            protocol,
            method,
            request_id: context.map(|context| context.request_id.clone()),
            verb,
            unknown_verb: (verb == "_OTHER").then(|| copy(request.method().as_str().as_bytes())).flatten(),
            path: (is_http || method.is_none()).then(|| copy(request.uri().path().as_bytes())).flatten(),
            authority: authority(request).and_then(copy),
            user_agent: user_agent.and_then(|text| copy(text.as_bytes())),
            peer,
            client: peer.filter(|_| is_http).map(|peer| proxies.client_ip(peer, request.headers())),
            scheme: Scheme::of(request),
            version: request.version(),
        }
    }

    pub(super) fn start_span(&self) -> Span {
        let Self { method, verb, peer, .. } = *self;
        let stream = method.and_then(|method| method.streaming.then_some(true));
        let request_id = self.request_id.as_deref().unwrap_or_default();
        let authority = self.authority.as_deref().and_then(|authority| Authority::try_from(authority).ok());
        let server_address = authority.as_ref().map(|authority| authority.host().trim_matches(['[', ']']));
        let server_port = authority.as_ref().and_then(Authority::port_u16).map(i64::from);
        match self.protocol {
            Protocol::Grpc => tracing::info_span!(
                "rpc.server",
                otel.name = method.map_or("grpc", |method| method.rpc_method()),
                otel.kind = "server",
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.method = method.map_or("_OTHER", |method| method.rpc_method()),
                rpc.method_original = self.path.as_deref().map(|path| path.trim_start_matches('/')),
                rpc.status_code = Empty,
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
                network.peer.address = peer.map(field::display),
                app.request_id = request_id,
                app.stream = stream,
                app.deadline_ms = Empty,
                app.refused_by = Empty,
                app.problem.code = Empty,
                app.idempotency.outcome = Empty,
            ),
            Protocol::Http => {
                let display_verb = if verb == "_OTHER" { "HTTP" } else { verb };
                let name = method.map_or_else(|| display_verb.to_owned(), |method| format!("{display_verb} {}", method.path));
                tracing::info_span!(
                    "http.server",
                    otel.name = name,
                    otel.kind = "server",
                    otel.status_code = Empty,
                    http.request.method = verb,
                    http.request.method_original = self.unknown_verb.as_deref(),
                    http.route = method.map(|method| method.path),
                    http.response.status_code = Empty,
                    url.path = self.path.as_deref(),
                    url.scheme = self.scheme.name(),
                    error.type = Empty,
                    server.address = server_address,
                    server.port = server_port,
                    client.address = self.client.map(field::display),
                    user_agent.original = self.user_agent.as_deref(),
                    network.protocol.version = version(self.version),
                    app.request_id = request_id,
                    app.stream = stream,
                    app.deadline_ms = Empty,
                    app.refused_by = Empty,
                    app.problem.code = Empty,
                    app.idempotency.outcome = Empty,
                )
            }
        }
    }
}

/// Returns the requested authority: `:authority`, or `Host`.
fn authority<B>(request: &Request<B>) -> Option<&[u8]> {
    let from_uri = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    from_uri.or_else(|| request.headers().get(header::HOST).map(HeaderValue::as_bytes))
}

/// Copies a client value, truncated to `MAX_ATTRIBUTE_BYTES`. Returns `None` if it is not UTF-8.
fn copy(text: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(text).ok()?;
    Some(text[..text.floor_char_boundary(MAX_ATTRIBUTE_BYTES)].into())
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
