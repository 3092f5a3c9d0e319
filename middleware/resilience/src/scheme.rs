//! URL scheme of a request: `http`, or `https` under TLS. Part of spans and metrics (`url.scheme`).

use http::Request;

/// Scheme that the client used. The transport sets it as a request extension; `http` without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scheme {
    /// Plain text.
    #[default]
    Http,
    /// TLS, ended at this port or at a trusted proxy.
    Https,
}

impl Scheme {
    /// Returns the scheme of `request`.
    pub fn of<B>(request: &Request<B>) -> Self {
        request.extensions().get().copied().unwrap_or_default()
    }

    /// Returns the scheme of a port with or without TLS.
    pub fn of_port(tls: bool) -> Self {
        if tls { Self::Https } else { Self::Http }
    }

    /// Returns the name as in a URL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}
