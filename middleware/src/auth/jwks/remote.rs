//! A key set at an address.

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

/// How long one read may take.
pub(super) const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// A key set is small.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Whom to ask, and for what.
pub(super) struct Remote {
    client: HttpClient,
    path: Uri,
}

impl fmt::Debug for Remote {
    /// Without what is secret of an address: credentials and a query.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.client.breaker().name(), self.path.path())
    }
}

impl Remote {
    /// The key set of the issuer `name` at `url`.
    pub(super) fn new(name: &str, url: &Url) -> Result<Self, InvalidConfig> {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let path = path.parse::<PathAndQuery>().map_err(|_| InvalidConfig::Origin(url.scheme().to_owned()))?;
        // Names of targets live as long as the process. So do the issuers that it believes, which are few.
        let client = client::http(name.to_owned().leak(), url, &config(), reqwest::Client::builder())?;
        Ok(Self { client, path: path.into() })
    }

    /// What is there, with the status OK and of bounded size.
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

/// Neither retries nor the breaker may keep a set that was never read from being asked for each second, as its callers are told.
fn config() -> HttpConfig {
    let timeout_ms = u64::try_from(FETCH_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    HttpConfig {
        // A slow issuer has all the time there is: only what fails faster is tried again.
        connect_timeout_ms: timeout_ms,
        attempt_timeout_ms: timeout_ms,
        call_timeout_ms: timeout_ms,
        // Whoever comes meanwhile waits for the read that is under way.
        max_in_flight: 1,
        circuit_breaker: circuit_breaker::Config {
            // Reached by the second read of a set that was never read. Later reads are further apart than the window is long.
            min_calls: 5,
            // Longer than the pause before a second attempt, so that a read of an issuer that is down is one attempt; and over before the
            // next read is due, whatever the issuer itself would have us wait.
            open_ms: 100,
            max_open_ms: 100,
            max_retry_after_ms: 0,
            probes: 1,
            // One that hangs has used all the time, and left none for an attempt that there would be to prevent; but the next read is due
            // at once.
            min_failure_timeout_ms: timeout_ms + 1,
            ..circuit_breaker::Config::default()
        },
        // Reads are too rare to earn tokens back within hours, and bound what an issuer is asked by themselves.
        retry: retry::Config { tokens: 1_000_000, ..retry::Config::default() },
    }
}
