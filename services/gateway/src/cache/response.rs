//! Cached responses and their headers: `Cache-Status` (RFC 9211), `Age` and `Cache-Control` (RFC
//! 9111).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG},
    request::Parts,
};
use palisade_middleware::rejection::Rejection;

use super::store::{Entry, Representation};
use crate::extract::{Preconditions, Read, etag};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// Clients may store a copy but must revalidate it, which costs little with a cache. No `max-age`:
/// a browser's copy cannot be invalidated by a change, and another user may use the same browser.
const PRIVATE_NO_CACHE: &str = "private, no-cache";

// Reasons for serving a stale entry, named as in RFC 5861.
pub(super) const STALE_IF_ERROR: &str = "stale-if-error";
pub(super) const STALE_WHILE_REVALIDATE: &str = "stale-while-revalidate";

/// Result of a read.
#[derive(Debug)]
pub(crate) enum CacheResult {
    /// Loaded without the cache.
    Uncached(Representation),
    /// Served from the cache, or loaded through it.
    Cached { entry: Arc<Entry>, status: CacheStatus, ttl: Duration },
}

/// Origin of a response, for `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheStatus {
    /// Fresh entry of this process.
    Hit,
    /// Fresh entry that another replica stored in Redis.
    Shared,
    /// Loaded from products.
    Forwarded { reason: FwdReason, stored: bool, collapsed: bool },
    /// Stale entry of this process, with the reason for serving it.
    Stale(&'static str),
}

/// Why the request was forwarded to products (the `fwd` parameter).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FwdReason {
    /// No entry.
    Miss,
    /// The entry was stale.
    Stale,
    /// The request bypassed the cache.
    Request,
}

/// Whether the request bypasses cached entries. True for `Cache-Control: no-cache`, `no-store` and
/// `max-age=0`, which browsers send on reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoCache(pub(super) bool);

impl CacheResult {
    /// Converts the result to an HTTP response: 304 without a body if the client has the
    /// representation, an error if `If-Match` is false.
    pub(crate) fn into_conditional_response(self, preconditions: &Preconditions) -> Result<Response, Rejection> {
        let mut headers = HeaderMap::new();
        let mut set = |name, text: String| HeaderValue::try_from(text).ok().and_then(|value| headers.insert(name, value));
        set(CACHE_CONTROL, PRIVATE_NO_CACHE.to_owned());
        let (body, tag) = match self {
            Self::Uncached(Representation { body, version }) => (body, version.map(|version| version.to_string())),
            Self::Cached { entry, status, ttl } => {
                let age = entry.age();
                set(CACHE_STATUS, status.to_header_value(age, ttl));
                if !matches!(status, CacheStatus::Forwarded { .. }) {
                    set(AGE, age.as_secs().to_string());
                }
                (entry.representation.body.clone(), Some(entry.tag.clone()))
            }
        };
        let read = preconditions.check_read(tag.as_deref())?;
        tag.and_then(|tag| set(ETAG, etag(tag)));
        if read == Read::NotModified {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok((headers, body).into_response())
    }
}

impl CacheStatus {
    /// Returns the value of `Cache-Status` for an entry of this age.
    fn to_header_value(self, age: Duration, ttl: Duration) -> String {
        let remaining = ttl.saturating_sub(age).as_secs();
        match self {
            Self::Hit => format!("palisade; hit; ttl={remaining}"),
            Self::Shared => format!("palisade; hit; ttl={remaining}; detail=shared"),
            Self::Stale(detail) => {
                let staleness = i64::try_from(age.saturating_sub(ttl).as_secs()).unwrap_or(i64::MAX);
                format!("palisade; hit; ttl={}; detail={detail}", -staleness)
            }
            Self::Forwarded { reason, stored, collapsed } => {
                let reason = match reason {
                    FwdReason::Miss => "uri-miss",
                    FwdReason::Stale => "stale",
                    FwdReason::Request => "request",
                };
                let stored = if stored { "; stored" } else { "" };
                let collapsed = if collapsed { "; collapsed" } else { "" };
                format!("palisade; fwd={reason}{stored}{collapsed}")
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoCache {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::read(&parts.headers))
    }
}

impl NoCache {
    fn read(headers: &HeaderMap) -> Self {
        let values = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
        let mut directives = values.flat_map(|value| value.split(',')).map(str::trim);
        Self(directives.any(|directive| ["no-cache", "no-store", "max-age=0"].iter().any(|known| directive.eq_ignore_ascii_case(known))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_status_names_the_origin() {
        let header_value = |status: CacheStatus, age_ms| status.to_header_value(Duration::from_millis(age_ms), Duration::from_secs(5));
        let forwarded = |reason, stored, collapsed| header_value(CacheStatus::Forwarded { reason, stored, collapsed }, 0);
        assert_eq!(header_value(CacheStatus::Hit, 1_200), "palisade; hit; ttl=3");
        assert_eq!(header_value(CacheStatus::Shared, 4_999), "palisade; hit; ttl=0; detail=shared");
        assert_eq!(header_value(CacheStatus::Stale(STALE_IF_ERROR), 65_000), "palisade; hit; ttl=-60; detail=stale-if-error");
        // Invalidated before its TTL elapsed.
        assert_eq!(header_value(CacheStatus::Stale(STALE_IF_ERROR), 1_000), "palisade; hit; ttl=0; detail=stale-if-error");
        assert_eq!(forwarded(FwdReason::Miss, true, false), "palisade; fwd=uri-miss; stored");
        assert_eq!(forwarded(FwdReason::Stale, true, true), "palisade; fwd=stale; stored; collapsed");
        assert_eq!(forwarded(FwdReason::Request, false, false), "palisade; fwd=request");
    }

    #[test]
    fn no_cache_recognizes_request_directives() {
        let bypasses = |values: &[&'static str]| {
            NoCache::read(&values.iter().map(|value| (CACHE_CONTROL, HeaderValue::from_static(value))).collect()).0
        };
        for values in [["no-cache"].as_slice(), &["max-age=0"], &["No-Store"], &["max-stale=5, no-cache"], &["max-stale", "no-cache"]] {
            assert!(bypasses(values), "{values:?}");
        }
        for values in [[].as_slice(), &["max-age=05"], &["max-age=60"], &["private"], &["x-no-cache"]] {
            assert!(!bypasses(values), "{values:?}");
        }
    }
}
