//! The keys of an issuer: fixed, or a key set that is read again when a token names a key we do not know.
//!
//! For half a minute after the set was asked for, a key that is not in it is refused from memory, whichever it is: a negative cache that
//! holds every unknown id and needs no room for any. Within that time a flood of invented ids costs the issuer one read.
//!
//! A read by HTTP goes through the stack of [`client::http`](crate::client::http()): it has a span and metrics, and what fails is asked
//! for again at once, within the time that one read may take.

mod remote;

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
use http::StatusCode;
use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use self::remote::Remote;
use super::keys::{KeyError, TrustedKey};
use crate::{
    client,
    context::{self, Context},
    rejection::Rejection,
};

/// A key that is not in the set makes us ask again at most this often.
const MIN_REFRESH: Duration = Duration::from_secs(30);
/// As [`MIN_REFRESH`], while there is no key set at all.
const MIN_FIRST_REFRESH: Duration = Duration::from_secs(1);
/// A set older than this is read again, so that a withdrawn key goes away.
const MAX_AGE: Duration = Duration::from_mins(5);

/// The keys of one issuer.
pub struct JwksSource {
    location: Option<JwksLocation>,
    snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    /// When the set was last asked for; held while it is (single flight).
    last_refresh: Mutex<Option<Instant>>,
    reads: metrics::Counter,
    failures: metrics::Counter,
}

/// Where a key set is read from.
#[derive(Debug)]
enum JwksLocation {
    File(PathBuf),
    Remote(Remote),
}

#[derive(Debug)]
struct Snapshot {
    keys: Vec<TrustedKey>,
    loaded_at: Instant,
}

impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("place", &self.location).field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// A key set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("the key set file {0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// The address did not answer.
    #[error("the key set address does not answer")]
    Http(#[source] Arc<Rejection>),
    /// Its answer broke off, or did not end in time.
    #[error("the answer of the key set address is not whole")]
    Body(#[source] tower::BoxError),
    /// It has something else to say; redirects are not followed.
    #[error("the key set address answers {0}")]
    Status(StatusCode),
    /// More than 256 KiB.
    #[error("the key set is too large")]
    TooLarge,
    /// What was read is no key set.
    #[error("unusable key set")]
    Keys(#[from] KeyError),
}

impl JwksSource {
    /// Keys that never change.
    pub fn fixed(keys: Vec<TrustedKey>) -> Self {
        let set = Self::empty(None);
        set.replace(keys);
        set
    }

    /// Keys that are read from a file when they are first needed, for keys that are mounted.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self::empty(Some(JwksLocation::File(path.into())))
    }

    /// Keys that are read from an `http` or `https` address when they are first needed.
    pub fn from_url(name: &str, url: &reqwest::Url) -> Result<Self, client::InvalidConfig> {
        super::install_crypto();
        Ok(Self::empty(Some(JwksLocation::Remote(Remote::new(name, url)?))))
    }

    fn empty(place: Option<JwksLocation>) -> Self {
        super::install_crypto();
        let read = |outcome: &'static str| metrics::counter!("palisade.auth.key_set.reads", "outcome" => outcome);
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
        // In this order: who saw the old generation and finds the new keys only verifies once more, never the reverse.
        self.snapshot.store(Some(Arc::new(Snapshot { keys, loaded_at: Instant::now() })));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes whenever the keys may have: what was verified under another generation is verified again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The key of that id for that algorithm. A token without `kid` fits a set that has one key for the algorithm.
    pub(super) fn find_key(&self, id: Option<&str>, algorithm: Algorithm) -> Option<TrustedKey> {
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

    /// Whether the set was ever read.
    pub(super) fn is_loaded(&self) -> bool {
        self.snapshot.load().is_some()
    }

    /// Whether the set should be read again though it has an answer.
    pub(super) fn is_stale(&self) -> bool {
        self.snapshot.load().as_ref().is_some_and(|snapshot| snapshot.loaded_at.elapsed() > MAX_AGE) && self.may_refresh()
    }

    /// Whether [`Self::refresh`] would read the set, or wait for somebody who does.
    pub(super) fn may_refresh(&self) -> bool {
        self.location.is_some() && self.last_refresh.try_lock().map_or(true, |last_refresh| self.is_due(*last_refresh))
    }

    fn is_due(&self, last_refresh: Option<Instant>) -> bool {
        let interval = if self.snapshot.load().is_some() { MIN_REFRESH } else { MIN_FIRST_REFRESH };
        last_refresh.is_none_or(|at| at.elapsed() >= interval)
    }

    /// Reads the set again, unless that was tried a moment ago. Concurrent callers share one read. On failure the old keys stay.
    ///
    /// Not to be dropped half-way: it has been asked then, and nobody knows the answer.
    pub(super) async fn refresh(&self) {
        let Some(location) = &self.location else { return };
        let mut last_refresh = self.last_refresh.lock().await;
        if !self.is_due(*last_refresh) {
            return;
        }
        *last_refresh = Some(Instant::now());
        // Nobody's in particular: others wait for it who have more time than whoever came first.
        match context::scope(Context::background(), location.read()).await {
            Ok(keys) => {
                self.reads.increment(1);
                self.replace(keys);
            }
            Err(error) => {
                self.failures.increment(1);
                // From now on: what follows a failure that took its time is not to meet the breaker that it opened. A hang opens none.
                if last_refresh.is_some_and(|at| at.elapsed() < remote::FETCH_TIMEOUT) {
                    *last_refresh = Some(Instant::now());
                }
                tracing::warn!(error = &error as &dyn std::error::Error, source = ?location, "the key set could not be read, old keys stay");
            }
        }
    }
}

impl JwksLocation {
    async fn read(&self) -> Result<Vec<TrustedKey>, ReadError> {
        let json = match self {
            Self::File(path) => std::fs::read(path).map_err(|error| ReadError::File(path.clone(), error))?,
            Self::Remote(remote) => remote.fetch().await?,
        };
        Ok(TrustedKey::from_jwks(&json)?)
    }
}

#[cfg(test)]
mod tests;
