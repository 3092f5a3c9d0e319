//! Request origin: fixes scheme, host and port of all calls of one client.

use std::sync::Arc;

use http::{
    Request, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use reqwest::Url;

/// URL that is not an http or https origin; holds its scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an origin must be http:// or https:// with a host, not {0}:")]
pub struct InvalidOrigin(pub String);

/// Scheme, host and port, with optional credentials, which no layer sees in the URI.
#[derive(Debug, Clone)]
pub struct Origin {
    url: Url,
    scheme: Scheme,
    authority: Authority,
    host: Arc<str>,
    port: u16,
}

impl Origin {
    /// Takes everything before the path of `url`.
    pub fn from_url(url: &Url) -> Result<Self, InvalidOrigin> {
        let invalid = || InvalidOrigin(url.scheme().to_owned());
        let scheme = match url.scheme() {
            "http" => Scheme::HTTP,
            "https" => Scheme::HTTPS,
            _ => return Err(invalid()),
        };
        let (host, port) = url.host_str().zip(url.port_or_known_default()).ok_or_else(invalid)?;
        let authority = match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        let authority = authority.parse().map_err(|_| invalid())?;
        let host = host.trim_matches(['[', ']']).into();
        Ok(Self { url: url.clone(), scheme, authority, host, port })
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
        let path = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        request
    }

    /// Returns the URL that a request for `uri` is sent to. Set by parts: joining a path with two
    /// leading slashes would change the host.
    pub fn url(&self, uri: &Uri) -> Url {
        let mut url = self.url.clone();
        url.set_path(uri.path());
        url.set_query(uri.query());
        url.set_fragment(None);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_never_leave_the_origin() {
        let origin = Origin::from_url(&"https://me:secret@id.example:8443/tenant?x=1#here".parse().unwrap()).unwrap();
        assert_eq!((&*origin.host(), origin.port()), ("id.example", 8443));
        for (input, visible, sent) in [
            ("/keys?v=2", "https://id.example:8443/keys?v=2", "https://me:secret@id.example:8443/keys?v=2"),
            ("http://evil.example/keys", "https://id.example:8443/keys", "https://me:secret@id.example:8443/keys"),
            ("//evil.example/keys", "https://id.example:8443//evil.example/keys", "https://me:secret@id.example:8443//evil.example/keys"),
            ("/", "https://id.example:8443/", "https://me:secret@id.example:8443/"),
        ] {
            let request = origin.resolve_uri(Request::get(input).body(()).unwrap());
            assert_eq!((request.uri().to_string().as_str(), origin.url(request.uri()).as_str()), (visible, sent));
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
    }
}
