//! JWKS of remote issuers, fetched through the HTTP client stack: with span, metrics, retries and
//! circuit breaker.

use std::{fmt, sync::Arc};

use ::http::{Request, StatusCode, Uri, uri::PathAndQuery};
use bytes::Bytes;
use http_body_util::BodyExt;
use reqwest::Url;
use tower::{BoxError, ServiceExt};

use futures_util::{FutureExt, future::BoxFuture};
use palisade_auth::jwks::{FETCH_TIMEOUT, FetchJwks, MAX_BYTES};
use palisade_resilience::{circuit_breaker, rejection::Rejection, retry};
use palisade_transport::client::http::InvalidOrigin;

use super::{HttpClient, HttpConfig, InvalidConfig, http};

/// Creates the client of the JWKS of `issuer` at `url`.
pub fn connect(issuer: &str, url: &Url) -> Result<Box<dyn FetchJwks>, BoxError> {
    Ok(Box::new(Remote::new(issuer, url)?))
}

/// JWKS that cannot be fetched.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// The server sent no response.
    #[error("the JWKS server sends no response")]
    Http(#[source] Arc<Rejection>),
    /// The body broke off or timed out.
    #[error("the JWKS response is incomplete")]
    Body(#[source] BoxError),
    /// A status other than 200; redirects are not followed.
    #[error("the JWKS server responds with status {0}")]
    Status(StatusCode),
    /// More than [`MAX_BYTES`].
    #[error("the JWKS is too large")]
    TooLarge,
}

/// HTTP client and path of a JWKS.
struct Remote {
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
    fn new(name: &str, url: &Url) -> Result<Self, InvalidConfig> {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = path.parse::<PathAndQuery>().map_err(|_| InvalidConfig::from(InvalidOrigin::Scheme(url.scheme().to_owned())))?;
        let mut origin = url.clone();
        origin.set_path("");
        origin.set_query(None);
        origin.set_fragment(None);
        // Leaked, because target names are static. There are few issuers, and they live as long as
        // the process.
        let client = http(name.to_owned().leak(), &origin, &config(), reqwest::Client::builder())?;
        Ok(Self { client, path: path.into() })
    }

    /// Fetches the response body. Fails unless the status is 200 and the size within [`MAX_BYTES`].
    async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.path.clone();
        let response = self.client.clone().oneshot(request).await.map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let (mut json, mut body) = (Vec::new(), response.into_body());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(FetchError::Body)?;
            json.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            if json.len() > MAX_BYTES {
                return Err(FetchError::TooLarge);
            }
        }
        Ok(json)
    }
}

impl FetchJwks for Remote {
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, BoxError>> {
        async { Ok(self.get().await?) }.boxed()
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

#[cfg(test)]
mod tests;
