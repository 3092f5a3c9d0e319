//! Host check of the admin port, against DNS rebinding and cross-site requests.
//!
//! A page of the web can make a browser send requests to addresses that only the browser reaches.
//! With a host name of its own that resolves to the admin port, the page can even read the
//! responses. Such a request carries that name in `Host`, or the origin of the page in `Origin`. A
//! request without `Origin`, as of an image, carries `Sec-Fetch-Site` (Fetch Metadata).

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{Next, from_fn_with_state},
    response::Response,
};
use http::{HeaderMap, HeaderName, StatusCode, Uri, header, uri::Authority};
use palisade_resilience::{
    rejection::{Reason, Rejection},
    setting::Invalid,
};
use tonic::Code;

/// Reason of a request that was not meant for this port.
static MISDIRECTED: Reason =
    Reason::new("misdirected_request", StatusCode::MISDIRECTED_REQUEST, Code::PermissionDenied, "The request is not meant for this port");

/// Fetch Metadata: whose page sent the request, and whether the user followed a link.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Host names of an admin port, besides `localhost` and all IP addresses.
#[derive(Debug, Clone, Default)]
pub struct AdminHosts(Arc<[String]>);

impl AdminHosts {
    /// Parses names separated by commas.
    pub fn parse(names: &str) -> Result<Self, Invalid> {
        let parse = |name: &str| match name.parse::<Authority>() {
            Ok(authority) if authority.as_str() == authority.host() => Ok(name.to_ascii_lowercase()),
            _ => Err(Invalid::new("admin_hosts", format!("{name:?} is not a host name"))),
        };
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(Self(names.map(parse).collect::<Result<_, _>>()?))
    }

    /// Rejects requests that a page of another origin may have caused.
    pub(super) fn guard(self, router: Router) -> Router {
        router.layer(from_fn_with_state(self, reject_foreign))
    }

    fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), &'static str> {
        let single = |name| {
            let mut values = headers.get_all(name).iter();
            let first = values.next();
            if values.next().is_some() { Err("a header is repeated") } else { Ok(first) }
        };
        let host = match (uri.authority(), single(header::HOST)?) {
            (Some(authority), _) => Some(authority.clone()),
            (None, Some(value)) => Some(value.to_str().ok().and_then(|host| host.parse().ok()).ok_or("the host is invalid")?),
            // HTTP/1.0, which no browser sends.
            (None, None) => None,
        };
        if host.as_ref().is_some_and(|host| !self.allows(host.host())) {
            return Err("the host is not one of admin_hosts");
        }
        let own_page = single(FETCH_SITE)?.is_none_or(|site| site == "same-origin" || site == "none");
        let link = single(FETCH_MODE)?.is_some_and(|mode| mode == "navigate");
        if !own_page && !link {
            return Err("the request comes from a page of another origin");
        }
        let Some(origin) = single(header::ORIGIN)? else { return Ok(()) };
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).and_then(|(_, host)| host.parse::<Authority>().ok());
        if origin.is_some() && origin == host { Ok(()) } else { Err("the request comes from a page of another origin") }
    }

    fn allows(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = host.strip_suffix('.').unwrap_or(host);
        host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok()
            || self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

async fn reject_foreign(State(hosts): State<AdminHosts>, request: Request, next: Next) -> Result<Response, Rejection> {
    match hosts.check(request.uri(), request.headers()) {
        Ok(()) => Ok(next.run(request).await),
        Err(detail) => Err(Rejection::new(&MISDIRECTED, detail)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_own_hosts_and_origins_are_allowed() {
        let hosts = AdminHosts::parse("gateway, Gateway.example").unwrap();
        for (host, origin, allowed) in [
            (Some("127.0.0.1:9464"), None, true),
            (Some("[::1]:9464"), None, true),
            (Some("10.1.2.3"), None, true),
            (Some("localhost:9464"), None, true),
            (Some("LOCALHOST."), None, true),
            (Some("gateway:9464"), None, true),
            (Some("GATEWAY.EXAMPLE."), None, true),
            (None, None, true),
            (Some("evil.example:9464"), None, false),
            (Some("localhost.evil.example"), None, false),
            (Some("127.0.0.1.evil.example"), None, false),
            (Some("gateway.evil.example"), None, false),
            (Some("user@127.0.0.1"), None, true),
            (Some(""), None, false),
            (Some("a b"), None, false),
            (Some("127.0.0.1:9464"), Some("http://127.0.0.1:9464"), true),
            (Some("127.0.0.1:9464"), Some("http://127.0.0.1:3000"), false),
            (Some("127.0.0.1:9464"), Some("http://evil.example"), false),
            (Some("127.0.0.1:9464"), Some("null"), false),
            (Some("127.0.0.1:9464"), Some(""), false),
            (None, Some("http://evil.example"), false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                headers.extend(value.map(|value| (name, HeaderValue::from_static(value))));
            }
            assert_eq!(hosts.check(&Uri::from_static("/metrics"), &headers).is_ok(), allowed, "{host:?} {origin:?}");
        }
        for (site, mode, allowed) in [
            ("none", None, true),
            ("same-origin", Some("cors"), true),
            ("cross-site", Some("navigate"), true),
            ("cross-site", Some("no-cors"), false),
            ("same-site", Some("no-cors"), false),
            ("cross-site", None, false),
        ] {
            let fetch = [(FETCH_SITE, Some(site)), (FETCH_MODE, mode)];
            let headers = fetch.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_static(value?)))).collect();
            assert_eq!(hosts.check(&Uri::from_static("/console/feed"), &headers).is_ok(), allowed, "{site} {mode:?}");
        }
        let http2 = |uri| hosts.check(&Uri::from_static(uri), &HeaderMap::new());
        assert!(http2("http://127.0.0.1:9464/metrics").is_ok() && http2("http://evil.example/metrics").is_err());
    }

    #[test]
    fn invalid_names_are_refused() {
        for names in ["http://gateway", "gateway:9464", "a b", "a,b c"] {
            assert_eq!(AdminHosts::parse(names).unwrap_err().key, "admin_hosts", "{names}");
        }
        assert_eq!(AdminHosts::parse(" , ").unwrap().0.len(), 0);
    }
}
