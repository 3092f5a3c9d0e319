//! Start of the CLIENT span, with the attributes known from the request.

use http::{Method, Request, Uri};
use tracing::{
    Span,
    field::{self, Empty},
};

use super::{ClientTraceLayer, Scope};
use crate::{
    protocol::{Protocol, known_verb},
    trace::scope,
};

pub(super) fn start_span<B>(target: &ClientTraceLayer, request: &Request<B>) -> Scope {
    let (target, verb, uri) = (target.clone(), request.method().clone(), request.uri().clone());
    scope::start(move || new_span(&target, &verb, &uri))
}

fn new_span(target: &ClientTraceLayer, verb: &Method, uri: &Uri) -> Span {
    let (server_address, server_port) = (&*target.server_address, target.server_port.map(i64::from));
    match target.protocol {
        Protocol::Grpc => {
            let method = uri.path().trim_start_matches('/');
            tracing::info_span!(
                "rpc.client",
                otel.name = method,
                otel.kind = "client",
                otel.status_code = Empty,
                rpc.system.name = "grpc",
                rpc.method = method,
                rpc.status_code = Empty,
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
                app.rpc.attempts = Empty,
                app.refused_by = Empty,
                app.problem.code = Empty,
            )
        }
        Protocol::Http => {
            let known = known_verb(verb);
            tracing::info_span!(
                "http.client",
                otel.name = if known == "_OTHER" { "HTTP" } else { known },
                otel.kind = "client",
                otel.status_code = Empty,
                http.request.method = known,
                http.request.method_original = (known == "_OTHER").then(|| verb.as_str()),
                http.request.resend_count = Empty,
                http.response.status_code = Empty,
                url.full = field::display(without_secrets(uri)),
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
                app.refused_by = Empty,
                app.problem.code = Empty,
            )
        }
    }
}

/// Removes credentials and query, which may be secret.
fn without_secrets(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}{}", uri.scheme_str().unwrap_or("http"), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_full_omits_credentials_and_query() {
        for (uri, expected) in [
            ("https://id.example/keys", "https://id.example/keys"),
            ("https://me:secret@id.example:8443/keys?token=secret", "https://id.example:8443/keys"),
            ("http://[::1]:80", "http://[::1]:80/"),
        ] {
            assert_eq!(without_secrets(&uri.parse().unwrap()), expected);
        }
    }
}
