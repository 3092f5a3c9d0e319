//! Start of the SERVER span, with the attributes known from the request head. Called only for
//! recorded requests.

use http::{Request, Version, header, uri::Authority};
use tracing::{
    Span,
    field::{self, Empty},
};

use crate::{
    caller::peer_address,
    context::Context,
    protocol::{Protocol, known_verb},
    scheme::Scheme,
    trusted_proxies::TrustedProxies,
};

/// Maximum length of an attribute value from the client, bytes. Longer ones are truncated.
const MAX_ATTRIBUTE_BYTES: usize = 256;

pub(super) fn start_span<B>(protocol: Protocol, proxies: &TrustedProxies, request: &Request<B>) -> Span {
    let context = Context::of(request);
    let method = context.and_then(|context| context.method);
    let request_id = context.map_or("", |context| &*context.request_id);
    let authority = authority(request);
    let server_address = authority.as_ref().and_then(|authority| truncate(authority.host().trim_matches(['[', ']']).as_bytes()));
    let server_port = authority.as_ref().and_then(Authority::port_u16).map(i64::from);
    let peer = peer_address(request.extensions()).map(|peer| peer.ip().to_canonical());
    match protocol {
        Protocol::Grpc => tracing::info_span!(
            "rpc.server",
            otel.name = method.map_or("grpc", |method| method.rpc_method()),
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system.name = "grpc",
            rpc.method = method.map_or("_OTHER", |method| method.rpc_method()),
            rpc.method_original =
                method.is_none().then(|| truncate(request.uri().path().trim_start_matches('/').as_bytes())).flatten(),
            rpc.status_code = Empty,
            error.type = Empty,
            server.address = server_address,
            server.port = server_port,
            network.peer.address = peer.map(field::display),
            app.request_id = request_id,
            app.deadline_ms = Empty,
            app.idempotency.outcome = Empty,
        ),
        Protocol::Http => {
            let verb = known_verb(request.method());
            let display_verb = if verb == "_OTHER" { "HTTP" } else { verb };
            let name = method.map_or_else(|| display_verb.to_owned(), |method| format!("{display_verb} {}", method.path));
            tracing::info_span!(
                "http.server",
                otel.name = name,
                otel.kind = "server",
                otel.status_code = Empty,
                http.request.method = verb,
                http.request.method_original = (verb == "_OTHER").then(|| truncate(request.method().as_str().as_bytes())).flatten(),
                http.route = method.map(|method| method.path),
                http.response.status_code = Empty,
                url.path = truncate(request.uri().path().as_bytes()),
                url.scheme = Scheme::of(request).name(),
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
                client.address = peer.map(|peer| field::display(proxies.client_ip(peer, request.headers()))),
                user_agent.original = request.headers().get(header::USER_AGENT).and_then(|text| truncate(text.as_bytes())),
                network.protocol.version = version(request.version()),
                app.request_id = request_id,
                app.deadline_ms = Empty,
                app.idempotency.outcome = Empty,
            )
        }
    }
}

/// Returns the requested authority: `:authority`, or `Host`.
fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let from_uri = request.uri().authority().cloned();
    from_uri.or_else(|| Authority::try_from(request.headers().get(header::HOST)?.as_bytes()).ok())
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
