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
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    time::{Instant, timeout},
};

use super::keys::{Algorithm, KeyError, TrustedKey};
use palisade_resilience::{
    context::{self, Context},
    task,
};
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
/// Maximum number of requests that wait for a refresh. More are rejected: an issuer that hangs must
/// not collect the requests of all callers.
pub const MAX_WAITERS: usize = 1_024;
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
pub struct JwksSource(Arc<Shared>);

struct Shared {
    location: Option<JwksLocation>,
    snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    refresh: Mutex<Refresh>,
    waiters: Semaphore,
    reads: metrics::Counter,
    failures: metrics::Counter,
}

/// State of the refreshes: one task at a time, whose waiters share its outcome.
struct Refresh {
    last: Option<Instant>,
    /// Closed when the running refresh ends, also by a panic.
    running: watch::Receiver<()>,
}

impl Refresh {
    fn is_running(&self) -> bool {
        self.running.has_changed().is_ok()
    }
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
        f.debug_struct("JwksSource").field("location", &self.0.location).field("snapshot", &self.0.snapshot).finish_non_exhaustive()
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
    /// The client did not keep its time limit.
    #[error("the JWKS was not read in time")]
    Timeout,
    /// The response is not a valid JWKS.
    #[error("invalid JWKS")]
    Keys(#[from] KeyError),
}

impl JwksSource {
    /// Creates a set of keys that never change.
    pub fn fixed(keys: Vec<TrustedKey>) -> Self {
        let set = Self::empty(None);
        set.0.replace(keys);
        set
    }

    /// Creates a set that is loaded from a file on first use, for mounted keys.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::empty(Some(JwksLocation::File(path.into())))
    }

    /// Sets the keys until the next refresh.
    #[must_use]
    pub fn with_keys(self, keys: Vec<TrustedKey>) -> Self {
        self.0.replace(keys);
        self
    }

    /// Creates a set that is loaded from an `http` or `https` URL on first use.
    pub fn from_url(issuer: &str, url: &Url, connect: ConnectJwks) -> Result<Self, BoxError> {
        Ok(Self::from_client(connect(issuer, url)?))
    }

    /// Creates a set that `client` loads on first use.
    pub fn from_client(client: Box<dyn FetchJwks>) -> Self {
        Self::empty(Some(JwksLocation::Remote(client)))
    }

    fn empty(place: Option<JwksLocation>) -> Self {
        super::install_crypto();
        let read = |outcome: &'static str| palisade_resilience::counter!("palisade.jwks.refreshes", "outcome" => outcome);
        Self(Arc::new(Shared {
            location: place,
            snapshot: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            refresh: Mutex::new(Refresh { last: None, running: watch::channel(()).1 }),
            waiters: Semaphore::new(MAX_WAITERS),
            reads: read("ok"),
            failures: read("failed"),
        }))
    }

    /// Generation of the keys. Cached verifications of another generation are invalid.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Returns the key with this id and algorithm. A token without `kid` matches if the set has
    /// exactly one key for the algorithm.
    pub fn find_key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<TrustedKey> {
        let snapshot = self.0.snapshot.load();
        let mut candidates = snapshot
            .as_ref()?
            .keys
            .iter()
            .filter(|key| key.accepts(algorithm) && (key.id.is_none() || id.is_none() || key.id.as_deref() == id));
        match (candidates.next(), candidates.next()) {
            (Some(key), None) => Some(key.clone()),
            _ => None,
        }
    }

    /// Returns whether the set has ever been loaded.
    pub fn is_loaded(&self) -> bool {
        self.0.snapshot.load().is_some()
    }

    /// Returns whether [`Self::refresh`] would load the set or wait for a refresh in progress.
    pub fn may_refresh(&self) -> bool {
        let refresh = self.0.refresh.lock();
        self.0.location.is_some() && (refresh.is_running() || self.0.is_due(refresh.last))
    }

    /// Starts a refresh in the background if the set is older than [`MAX_AGE`].
    pub fn refresh_if_stale(&self) {
        if self.0.snapshot.load().as_ref().is_some_and(|snapshot| snapshot.loaded_at.elapsed() > MAX_AGE) {
            self.start_or_join();
        }
    }

    /// Waits for the refresh in progress; starts one if the last was not too recent. Single flight:
    /// one task refreshes, and its waiters share the outcome. On failure the old keys stay in use.
    ///
    /// Returns `false` without waiting if [`MAX_WAITERS`] requests wait already. Safe to cancel:
    /// the refresh continues.
    pub async fn refresh(&self) -> bool {
        let Ok(_waiter) = self.0.waiters.try_acquire() else { return false };
        if let Some(mut running) = self.start_or_join() {
            // Fails at the end of the refresh, which is its only message.
            let _ = running.changed().await;
        }
        true
    }

    fn start_or_join(&self) -> Option<watch::Receiver<()>> {
        let mut refresh = self.0.refresh.lock();
        if refresh.is_running() {
            return Some(refresh.running.clone());
        }
        if self.0.location.is_none() || !self.0.is_due(refresh.last) {
            return None;
        }
        let (done, running) = watch::channel(());
        *refresh = Refresh { last: Some(Instant::now()), running: running.clone() };
        let shared = self.0.clone();
        drop(task::spawn(async move {
            // A background context: the requests that wait have deadlines of their own.
            context::scope(Context::background(), shared.reload()).await;
            drop(done);
        }));
        Some(running)
    }
}

impl Shared {
    fn replace(&self, keys: Vec<TrustedKey>) {
        // The keys are stored before the generation changes. A reader between the two steps
        // verifies a token once more than needed; in reverse order it could cache a result of the
        // old keys under the new generation.
        self.snapshot.store(Some(Arc::new(Snapshot { keys, loaded_at: Instant::now() })));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn is_due(&self, last_refresh: Option<Instant>) -> bool {
        let interval = if self.snapshot.load().is_some() { MIN_REFRESH } else { MIN_FIRST_REFRESH };
        last_refresh.is_none_or(|at| at.elapsed() >= interval)
    }

    async fn reload(&self) {
        let Some(location) = &self.location else { return };
        let started = Instant::now();
        match timeout(2 * FETCH_TIMEOUT, location.read()).await.unwrap_or(Err(ReadError::Timeout)) {
            Ok(keys) => {
                self.reads.increment(1);
                self.replace(keys);
            }
            Err(error) => {
                self.failures.increment(1);
                // The interval restarts after a quick failure, so that the next refresh does not
                // meet the breaker that this one opened. A hanging request opens no breaker.
                if started.elapsed() < FETCH_TIMEOUT {
                    self.refresh.lock().last = Some(Instant::now());
                }
                tracing::warn!(error = &error as &dyn std::error::Error, source = ?location, "JWKS refresh failed, keeping the old keys");
            }
        }
    }
}

impl JwksLocation {
    async fn read(&self) -> Result<Vec<TrustedKey>, ReadError> {
        let json = match self {
            // A mounted file system may hang.
            Self::File(path) => {
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(file)).await.map_err(|_| ReadError::Timeout)?;
                read.map_err(|error| ReadError::File(path.clone(), error))?
            }
            Self::Remote(remote) => remote.fetch().await.map_err(ReadError::Fetch)?,
        };
        Ok(TrustedKey::from_jwks(&json)?)
    }
}

#[cfg(test)]
mod tests;
