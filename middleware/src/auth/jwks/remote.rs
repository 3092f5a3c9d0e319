//! JWKS fetched over HTTP.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, uri::PathAndQuery};
use http_body_util::BodyExt;
use reqwest::Url;
use tower::ServiceExt;

use super::ReadError;
use crate::{
    circuit_breaker,
    client::{self, HttpClient, HttpConfig, InvalidConfig},
    retry,
};

/// Time limit of one refresh, including retries.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a JWKS, bytes.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// HTTP client and path of a JWKS.
pub(super) struct Remote {
    client: HttpClient,
    path: Uri,
}

impl fmt::Debug for Remote {
    /// Omits credentials and query, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.client.breaker().name(), self.path.path())
    }
}

impl Remote {
    /// Creates the client for the JWKS of issuer `name` at `url`.
    pub(super) fn new(name: &str, url: &Url) -> Result<Self, InvalidConfig> {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = path.parse::<PathAndQuery>().map_err(|_| InvalidConfig::Origin(url.scheme().to_owned()))?;
        // Leaked, because target names are static. There are few issuers, and they live as long as
        // the process.
        let client = client::http(name.to_owned().leak(), url, &config(), reqwest::Client::builder())?;
        Ok(Self { client, path: path.into() })
    }

    /// Fetches the response body. Fails unless the status is 200 and the size within [`MAX_BYTES`].
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, ReadError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.path.clone();
        let response = self.client.clone().oneshot(request).await.map_err(ReadError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(ReadError::Status(response.status()));
        }
        let (mut json, mut body) = (Vec::new(), response.into_body());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(ReadError::Body)?;
            json.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            if json.len() > MAX_BYTES {
                return Err(ReadError::TooLarge);
            }
        }
        Ok(json)
    }
}

/// Retry and breaker settings that still allow one refresh per second of a set that was never
/// loaded, as promised to callers by `retry-after`.
fn config() -> HttpConfig {
    let timeout_ms = u64::try_from(FETCH_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    HttpConfig {
        // A slow issuer may use the whole time limit. Only quicker failures are retried.
        connect_timeout_ms: timeout_ms,
        attempt_timeout_ms: timeout_ms,
        call_timeout_ms: timeout_ms,
        // Concurrent callers wait for the refresh in progress.
        max_in_flight: 1,
        circuit_breaker: circuit_breaker::Config {
            // Reached by the second refresh of a set that was never loaded. Later refreshes are
            // further apart than the window is long.
            min_calls: 5,
            // Longer than the retry backoff, so that a refresh makes one attempt while the issuer
            // is down. Shorter than the refresh interval, and independent of the issuer's
            // `retry-after`.
            open_ms: 100,
            max_open_ms: 100,
            max_retry_after_ms: 0,
            probes: 1,
            // Timeouts do not count as failures: a hanging attempt uses the whole time limit and
            // leaves no time for a retry that the breaker could prevent, and the next refresh is
            // due at once.
            min_failure_timeout_ms: timeout_ms + 1,
            ..circuit_breaker::Config::default()
        },
        // Effectively unlimited. Refreshes are too rare to earn tokens back within hours, and their
        // interval already limits the load on the issuer.
        retry: retry::Config { tokens: 1_000_000, ..retry::Config::default() },
    }
}
