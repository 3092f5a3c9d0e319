//! Where an upstream is: `http://host:port` or `https://host:port`, one or several.

use http::{Uri, uri::Scheme};

use super::InvalidConfig;

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address(Uri);

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, InvalidConfig> {
        let invalid = || InvalidConfig::Url(url.to_owned());
        let uri: Uri = url.trim().parse().map_err(|_| invalid())?;
        let complete = matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16().is_some_and(|port| port > 0);
        if complete { Ok(Self(uri)) } else { Err(invalid()) }
    }

    /// Each once, in the given order; at least one.
    pub(super) fn list<'a>(urls: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, InvalidConfig> {
        let mut addresses = Vec::new();
        for url in urls {
            let address = Self::parse(url)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() { Err(InvalidConfig::Url(String::new())) } else { Ok(addresses) }
    }

    /// Whether it asks for TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// What requests say that they are for.
    pub(super) fn origin(&self, secure: bool) -> Uri {
        let mut parts = self.0.clone().into_parts();
        parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
        Uri::from_parts(parts).unwrap_or_else(|_| self.0.clone())
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// `host:port`, its name in logs and metrics.
    pub(super) fn name(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    pub(super) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.0.port_u16()
    }
}
