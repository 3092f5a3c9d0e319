//! JWKS (RFC 7517) of an issuer: fixed, or refreshed when a token names an unknown key.
//!
//! Negative caching: after a refresh, every key id missing from the set is rejected from memory for
//! 30 s. This covers all unknown ids without storing any, so a flood of invented ids costs the
//! issuer one request.
//!
//! A remote set is fetched by a [`FetchJwks`] of the application, which bounds its time and size.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use super::keys::{KeyError, TrustedKey};
use palisade_resilience::context::{self, Context};
use tower::BoxError;
use url::Url;

/// Minimum interval between refreshes caused by an unknown key.
pub const MIN_REFRESH: Duration = Duration::from_secs(30);
/// As [`MIN_REFRESH`], while no set has been loaded.
pub const MIN_FIRST_REFRESH: Duration = Duration::from_secs(1);
/// Maximum age of a set. An older one is refreshed, so that withdrawn keys are removed.
pub const MAX_AGE: Duration = Duration::from_mins(5);

/// Time limit of one fetch, including retries.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum size of a set, bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// Client of one remote JWKS.
pub trait FetchJwks: fmt::Debug + Send + Sync {
    /// Fetches the set within [`FETCH_TIMEOUT`]; at most [`MAX_BYTES`].
    fn fetch(&self) -> BoxFuture<'_, Result<Vec<u8>, BoxError>>;
}

/// Creates the client of the JWKS of an issuer (its name in metrics) at a URL.
pub type ConnectJwks = fn(&str, &Url) -> Result<Box<dyn FetchJwks>, BoxError>;

/// Keys of one issuer.
pub struct JwksSource {
    location: Option<JwksLocation>,
    snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    /// Time of the last refresh. Locked during a refresh (single flight).
    last_refresh: Mutex<Option<Instant>>,
    reads: metrics::Counter,
    failures: metrics::Counter,
}

/// Location of a JWKS.
#[derive(Debug)]
enum JwksLocation {
    File(PathBuf),
    Remote(Box<dyn FetchJwks>),
}

#[derive(Debug)]
struct Snapshot {
    keys: Vec<TrustedKey>,
    loaded_at: Instant,
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksSource").field("location", &self.location).field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// The JWKS could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read the JWKS file {0}")]
    File(PathBuf, #[source] std::io::Error),
    /// The remote set cannot be fetched.
    #[error("cannot fetch the JWKS")]
    Fetch(#[source] BoxError),
    /// The response is not a valid JWKS.
    #[error("invalid JWKS")]
    Keys(#[from] KeyError),
}

impl JwksSource {
    /// Creates a set of keys that never change.
    pub fn fixed(keys: Vec<TrustedKey>) -> Self {
        let set = Self::empty(None);
        set.replace(keys);
        set
    }

    /// Creates a set that is loaded from a file on first use, for mounted keys.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::empty(Some(JwksLocation::File(path.into())))
    }

    /// Creates a set that is loaded from an `http` or `https` URL on first use.
    pub fn from_url(issuer: &str, url: &Url, connect: ConnectJwks) -> Result<Self, BoxError> {
        super::install_crypto();
        Ok(Self::empty(Some(JwksLocation::Remote(connect(issuer, url)?))))
    }

    fn empty(place: Option<JwksLocation>) -> Self {
        super::install_crypto();
        let read = |outcome: &'static str| metrics::counter!("palisade.jwks.refreshes", "outcome" => outcome);
        Self {
            location: place,
            snapshot: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            last_refresh: Mutex::new(None),
            reads: read("ok"),
            failures: read("failed"),
        }
    }

    fn replace(&self, keys: Vec<TrustedKey>) {
        // The keys are stored before the generation changes. A reader between the two steps
        // verifies a token once more than needed; in reverse order it could cache a result of the
        // old keys under the new generation.
        self.snapshot.store(Some(Arc::new(Snapshot { keys, loaded_at: Instant::now() })));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Generation of the keys. Cached verifications of another generation are invalid.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the key with this id and algorithm. A token without `kid` matches if the set has
    /// exactly one key for the algorithm.
    pub fn find_key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<TrustedKey> {
        let snapshot = self.snapshot.load();
        let mut candidates = snapshot
            .as_ref()?
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (key.id.is_none() || id.is_none() || key.id.as_deref() == id));
        match (candidates.next(), candidates.next()) {
            (Some(key), None) => Some(key.clone()),
            _ => None,
        }
    }

    /// Returns whether the set has ever been loaded.
    pub fn is_loaded(&self) -> bool {
        self.snapshot.load().is_some()
    }

    /// Returns whether a loaded set is due for a refresh.
    pub fn is_stale(&self) -> bool {
        self.snapshot.load().as_ref().is_some_and(|snapshot| snapshot.loaded_at.elapsed() > MAX_AGE) && self.may_refresh()
    }

    /// Returns whether [`Self::refresh`] would load the set or wait for a refresh in progress.
    pub fn may_refresh(&self) -> bool {
        self.location.is_some() && self.last_refresh.try_lock().map_or(true, |last_refresh| self.is_due(*last_refresh))
    }

    fn is_due(&self, last_refresh: Option<Instant>) -> bool {
        let interval = if self.snapshot.load().is_some() { MIN_REFRESH } else { MIN_FIRST_REFRESH };
        last_refresh.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Refreshes the set, unless the last refresh was too recent. Single flight: concurrent callers
    /// share one refresh. On failure the old keys stay in use.
    ///
    /// Not cancellation-safe: a dropped refresh counts as done, but its result is lost.
    pub async fn refresh(&self) {
        let Some(location) = &self.location else { return };
        let mut last_refresh = self.last_refresh.lock().await;
        if !self.is_due(*last_refresh) {
            return;
        }
        *last_refresh = Some(Instant::now());
        // Runs in a background context: other callers with later deadlines wait for the same
        // refresh.
        match context::scope(Context::background(), location.read()).await {
            Ok(keys) => {
                self.reads.increment(1);
                self.replace(keys);
            }
            Err(error) => {
                self.failures.increment(1);
                // The interval restarts after a quick failure, so that the next refresh does not
                // meet the breaker that this one opened. A hanging request opens no breaker.
                if last_refresh.is_some_and(|at| at.elapsed() < FETCH_TIMEOUT) {
                    *last_refresh = Some(Instant::now());
                }
                tracing::warn!(error = &error as &dyn std::error::Error, source = ?location, "JWKS refresh failed, keeping the old keys");
            }
        }
    }
}

impl JwksLocation {
    async fn read(&self) -> Result<Vec<TrustedKey>, ReadError> {
        let json = match self {
            Self::File(path) => std::fs::read(path).map_err(|error| ReadError::File(path.clone(), error))?,
            Self::Remote(remote) => remote.fetch().await.map_err(ReadError::Fetch)?,
        };
        Ok(TrustedKey::from_jwks(&json)?)
    }
}
