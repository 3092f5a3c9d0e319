//! Start of the CLIENT span, with the attributes known from the request.

use http::{Request, Uri};
use tracing::{
    Span,
    field::{self, Empty},
};

use super::ClientTraceLayer;
use crate::protocol::{Protocol, known_verb};

pub(super) fn start_span<B>(target: &ClientTraceLayer, request: &Request<B>) -> Span {
    let (server_address, server_port) = (&*target.server_address, target.server_port.map(i64::from));
    match target.protocol {
        Protocol::Grpc => {
            let method = request.uri().path().trim_start_matches('/');
            crate::recorded_span!(
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
            )
        }
        Protocol::Http => {
            let verb = known_verb(request.method());
            crate::recorded_span!(
                "http.client",
                otel.name = if verb == "_OTHER" { "HTTP" } else { verb },
                otel.kind = "client",
                otel.status_code = Empty,
                http.request.method = verb,
                http.request.method_original = (verb == "_OTHER").then(|| request.method().as_str()),
                http.request.resend_count = Empty,
                http.response.status_code = Empty,
                url.full = field::display(without_secrets(request.uri())),
                error.type = Empty,
                server.address = server_address,
                server.port = server_port,
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
