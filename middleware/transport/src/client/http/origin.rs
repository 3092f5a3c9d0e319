//! Base URL of a client: fixes scheme, host, port and the first part of the path of all calls.

use std::sync::Arc;

use http::{
    Request, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use reqwest::Url;

/// Unusable base URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// Not http or https with a host; holds the scheme.
    #[error("an origin must be http:// or https:// with a host, not {0}:")]
    Scheme(String),
    /// A query or fragment, which a base URL cannot have.
    #[error("an origin must have no query and no fragment")]
    Query,
}

/// Scheme, host, port and base path, with optional credentials, which no layer sees in the URI.
#[derive(Debug, Clone)]
pub struct Origin {
    url: Url,
    scheme: Scheme,
    authority: Authority,
    host: Arc<str>,
    port: u16,
    /// Path in front of the path of each request, without a slash at its end.
    base: Box<str>,
}

impl Origin {
    /// Creates the origin of requests below `url`.
    pub fn from_url(url: &Url) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin::Scheme(url.scheme().to_owned());
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(invalid()),
        };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidOrigin::Query);
        }
        let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(invalid)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let authority = authority.parse().map_err(|_| invalid())?;
        let host = host.trim_matches(['[', ']']).into();
        let base = url.path().trim_end_matches('/').into();
        Ok(Self { url: url.clone(), scheme, authority, host, port, base })
    }

    /// Returns the host.
    pub fn host(&self) -> Arc<str> {
        self.host.clone()
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets the full URI of the request, without credentials.
    pub fn resolve_uri<B>(&self, mut request: Request<B>) -> Request<B> {
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        // Both parts are valid, so the whole is.
        let path = if self.base.is_empty() { path } else { format!("{}{path}", self.base).parse().unwrap_or(path) };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request
    }

    /// Returns the URL that a request for `uri` is sent to, or `None` if dot segments lead out of
    /// the base path. Set by parts: joining a path with two leading slashes would change the host.
    pub fn url(&self, uri: &Uri) -> Option<Url> {
        let mut url = self.url.clone();
        url.set_path(uri.path());
        url.set_query(uri.query());
        url.path().strip_prefix(&*self.base)?.starts_with('/').then_some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_never_leave_the_origin() {
        let origin = Origin::from_url(&"https://me:secret@id.example:8443".parse().unwrap()).unwrap();
        assert_eq!((&*origin.host(), origin.port()), ("id.example", 8443));
        for (input, visible, sent) in [
            ("/keys?v=2", "https://id.example:8443/keys?v=2", "https://me:secret@id.example:8443/keys?v=2"),
            ("http://evil.example/keys", "https://id.example:8443/keys", "https://me:secret@id.example:8443/keys"),
            ("//evil.example/keys", "https://id.example:8443//evil.example/keys", "https://me:secret@id.example:8443//evil.example/keys"),
            ("/", "https://id.example:8443/", "https://me:secret@id.example:8443/"),
        ] {
            let request = origin.resolve_uri(Request::get(input).body(()).unwrap());
            assert_eq!((request.uri().to_string().as_str(), origin.url(request.uri()).unwrap().as_str()), (visible, sent));
        }
    }

    #[test]
    fn requests_stay_below_the_base_path() {
        for base in ["https://id.example/tenant/7", "https://id.example/tenant/7/"] {
            let origin = Origin::from_url(&base.parse().unwrap()).unwrap();
            for (input, sent) in [
                ("/keys?v=2", Some("https://id.example/tenant/7/keys?v=2")),
                ("/", Some("https://id.example/tenant/7/")),
                ("//keys", Some("https://id.example/tenant/7//keys")),
                ("/a/../keys", Some("https://id.example/tenant/7/keys")),
                ("/../8/keys", None),
                ("/%2e%2e/8/keys", None),
                ("/../../..", None),
            ] {
                let request = origin.resolve_uri(Request::get(input).body(()).unwrap());
                assert_eq!(origin.url(request.uri()).as_ref().map(Url::as_str), sent, "{input}");
            }
        }
    }

    #[test]
    fn default_port_follows_scheme() {
        for (url, host, port) in [("https://id.example/keys", "id.example", 443), ("http://[::1]", "::1", 80)] {
            let origin = Origin::from_url(&url.parse().unwrap()).unwrap();
            assert_eq!((&*origin.host(), origin.port()), (host, port));
        }
        for url in ["ftp://id.example/keys", "file:///keys", "unix:/keys"] {
            assert!(Origin::from_url(&url.parse().unwrap()).is_err(), "{url}");
        }
        for url in ["https://id.example/keys?x=1", "https://id.example/#here"] {
            assert_eq!(Origin::from_url(&url.parse().unwrap()).unwrap_err(), InvalidOrigin::Query, "{url}");
        }
    }
}
