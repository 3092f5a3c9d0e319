//! Start of the SERVER span, with the attributes known from the request head.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method as Verb, Request, Uri, Version, header, uri::Authority};
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

/// Parts of a request head that the span shows. Cheap to make: the span may never be started.
pub(super) struct Head {
    protocol: Protocol,
    method: Option<&'static Method>,
    request_id: Option<RequestId>,
    verb: Verb,
    uri: Uri,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    peer: Option<IpAddr>,
    client: Option<IpAddr>,
    scheme: Scheme,
    version: Version,
}

impl Head {
    pub(super) fn of<B>(protocol: Protocol, proxies: &TrustedProxies, request: &Request<B>) -> Self {
        let context = Context::of(request);
        let header = |name: HeaderName| request.headers().get(name).cloned();
        let peer = peer_address(request.extensions()).map(|peer| peer.ip().to_canonical());
        let is_http = protocol == Protocol::Http;
        Self {
            protocol,
            method: context.and_then(|context| context.method),
            request_id: context.map(|context| context.request_id.clone()),
            verb: request.method().clone(),
            uri: request.uri().clone(),
            host: header(header::HOST),
            user_agent: header(header::USER_AGENT).filter(|_| is_http),
            peer,
            client: peer.filter(|_| is_http).map(|peer| proxies.client_ip(peer, request.headers())),
            scheme: Scheme::of(request),
            version: request.version(),
        }
    }

    pub(super) fn start_span(&self) -> Span {
        let Self { method, peer, .. } = *self;
        let request_id = self.request_id.as_deref().unwrap_or_default();
        let authority = self.authority();
        let server_address = authority.as_ref().and_then(|authority| truncate(authority.host().trim_matches(['[', ']']).as_bytes()));
        let server_port = authority.as_ref().and_then(Authority::port_u16).map(i64::from);
        match self.protocol {
            Protocol::Grpc => tracing::info_span!(
                "rpc.server",
                otel.name = method.map_or("grpc", |method| method.rpc_method()),
                otel.kind = "server",
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.method = method.map_or("_OTHER", |method| method.rpc_method()),
                rpc.method_original =
                    method.is_none().then(|| truncate(self.uri.path().trim_start_matches('/').as_bytes())).flatten(),
                rpc.status_code = Empty,
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
                network.peer.address = peer.map(field::display),
                app.request_id = request_id,
                app.deadline_ms = Empty,
            app.refused_by = Empty,
            app.problem.code = Empty,
                app.idempotency.outcome = Empty,
            ),
            Protocol::Http => {
                let verb = known_verb(&self.verb);
                let display_verb = if verb == "_OTHER" { "HTTP" } else { verb };
                let name = method.map_or_else(|| display_verb.to_owned(), |method| format!("{display_verb} {}", method.path));
                tracing::info_span!(
                        "http.server",
                        otel.name = name,
                        otel.kind = "server",
                        otel.status_code = Empty,
                        http.request.method = verb,
                        http.request.method_original = (verb == "_OTHER").then(|| truncate(self.verb.as_str().as_bytes())).flatten(),
                        http.route = method.map(|method| method.path),
                        http.response.status_code = Empty,
                        url.path = truncate(self.uri.path().as_bytes()),
                        url.scheme = self.scheme.name(),
                        error.type = Empty,
                        server.address = server_address,
                        server.port = server_port,
                        client.address = self.client.map(field::display),
                        user_agent.original = self.user_agent.as_ref().and_then(|text| truncate(text.as_bytes())),
                        network.protocol.version = version(self.version),
                        app.request_id = request_id,
                        app.deadline_ms = Empty,
                app.refused_by = Empty,
                app.problem.code = Empty,
                        app.idempotency.outcome = Empty,
                    )
            }
        }
    }

    /// Returns the requested authority: `:authority`, or `Host`.
    fn authority(&self) -> Option<Authority> {
        let from_uri = self.uri.authority().cloned();
        from_uri.or_else(|| Authority::try_from(self.host.as_ref()?.as_bytes()).ok())
    }
}

/// Truncates a client value to `MAX_ATTRIBUTE_BYTES`. Returns `None` if it is not UTF-8.
fn truncate(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    Some(&text[..text.floor_char_boundary(MAX_ATTRIBUTE_BYTES)])
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
