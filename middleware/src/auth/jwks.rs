//! The keys of an issuer: fixed, or a key set that is read again when a token names a key we do not know.

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
use jsonwebtoken::Algorithm;
use tokio::{sync::Mutex, time::Instant};

use super::keys::{KeyError, TrustedKey};

/// A key that is not in the set makes us ask again at most this often.
const MIN_REFRESH: Duration = Duration::from_secs(30);
/// As [`MIN_REFRESH`], while there is no key set at all.
const MIN_FIRST_REFRESH: Duration = Duration::from_secs(1);
/// A set older than this is read again, so that a withdrawn key goes away.
const MAX_AGE: Duration = Duration::from_mins(5);
/// How long one read may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);
/// A key set is small.
const MAX_BYTES: usize = 256 * 1024;

/// Where a key set is read from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file, for keys that are mounted.
    File(PathBuf),
    /// An `http` or `https` address.
    Url(reqwest::Url),
}

/// The keys of one issuer.
pub struct KeySet {
    source: Option<Source>,
    snapshot: ArcSwapOption<Snapshot>,
    generation: AtomicU64,
    /// When the set was last asked for; held while it is (single flight).
    asked: Mutex<Option<Instant>>,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Snapshot {
    keys: Vec<TrustedKey>,
    read_at: Instant,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeySet").field("source", &self.source).field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// The answer to "which key?".
#[derive(Debug)]
pub(super) enum Found {
    Key(TrustedKey),
    /// The set is known and has no such key.
    Unknown,
    /// The set has never been read.
    NeverRead,
}

/// A key set could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("the key set file {0} cannot be read")]
    File(PathBuf, #[source] std::io::Error),
    /// The address did not answer well.
    #[error("the key set address does not answer")]
    Http(#[source] reqwest::Error),
    /// More than 256 KiB.
    #[error("the key set is too large")]
    TooLarge,
    /// What was read is no key set.
    #[error("unusable key set")]
    Keys(#[from] KeyError),
}

impl KeySet {
    /// Keys that never change.
    pub fn fixed(keys: Vec<TrustedKey>) -> Self {
        let set = Self::empty(None);
        set.replace(keys);
        set
    }

    /// Keys that are read from `source` when they are first needed.
    pub fn from_source(source: Source) -> Self {
        Self::empty(Some(source))
    }

    fn empty(source: Option<Source>) -> Self {
        super::install_crypto();
        let http = reqwest::Client::builder().timeout(FETCH_TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
        Self {
            source,
            snapshot: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            asked: Mutex::new(None),
            http: http.unwrap_or_default(),
        }
    }

    fn replace(&self, keys: Vec<TrustedKey>) {
        self.snapshot.store(Some(Arc::new(Snapshot { keys, read_at: Instant::now() })));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes whenever the keys may have: what was verified under another generation is verified again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The key of that id for that algorithm. A token without `kid` fits a set that has one key for the algorithm.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Found {
        let Some(snapshot) = self.snapshot.load_full() else { return Found::NeverRead };
        let mut fitting =
            snapshot.keys.iter().filter(|key| key.algorithm == algorithm && (key.id.is_none() || id.is_none() || key.id.as_deref() == id));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Found::Key(key.clone()),
            _ => Found::Unknown,
        }
    }

    /// Whether the set should be read again though it has an answer.
    pub(super) fn is_stale(&self) -> bool {
        self.source.is_some() && self.snapshot.load().as_ref().is_some_and(|snapshot| snapshot.read_at.elapsed() > MAX_AGE)
    }

    /// Reads the set again, unless that was tried a moment ago. Concurrent callers share one read. On failure the old keys stay.
    pub(super) async fn refresh(&self) {
        let Some(source) = &self.source else { return };
        let mut asked = self.asked.lock().await;
        let pause = if self.snapshot.load().is_some() { MIN_REFRESH } else { MIN_FIRST_REFRESH };
        if asked.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        *asked = Some(Instant::now());
        match self.read(source).await {
            Ok(keys) => self.replace(keys),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, ?source, "the key set could not be read, old keys stay"),
        }
    }

    async fn read(&self, source: &Source) -> Result<Vec<TrustedKey>, ReadError> {
        let json = match source {
            Source::File(path) => std::fs::read(path).map_err(|error| ReadError::File(path.clone(), error))?,
            Source::Url(url) => {
                let response = self.http.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
                let mut response = response.map_err(ReadError::Http)?;
                let mut json = Vec::new();
                while let Some(chunk) = response.chunk().await.map_err(ReadError::Http)? {
                    json.extend_from_slice(&chunk);
                    if json.len() > MAX_BYTES {
                        return Err(ReadError::TooLarge);
                    }
                }
                json
            }
        };
        Ok(TrustedKey::from_jwks(&json)?)
    }
}
