//! Token revocation: rejects otherwise valid tokens, for example stolen tokens, tokens of removed
//! users, and all tokens issued before a global logout.

mod list;

use std::{
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::list::RevocationList;
use super::Principal;

/// Minimum interval between checks of the file, and thus the maximum delay of a new entry.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum size of the file, about 20,000 entries. Entries can be removed once their tokens have
/// expired, so the list stays short.
const MAX_BYTES: u64 = 1024 * 1024;

/// Source of token revocations.
pub trait Revocations: Send + Sync + fmt::Debug {
    /// Returns whether the token of this principal is revoked. Called for every request: must be
    /// fast and must not block.
    fn is_revoked(&self, principal: &Principal) -> bool;
}

/// Revocation list in a file. Requests check the file once per second and reload it after a change.
///
/// One entry per line; blank lines and lines that begin with `#` are ignored:
///
/// ```text
/// jti 0192f0c1-2345-7abc-8def-0123456789ab
/// sub mallory
/// sub-before 1767225600 alice
/// ```
///
/// - `jti` revokes one token. As a subject, it begins with the prefix of its issuer.
/// - `sub` revokes all tokens of a subject.
/// - `sub-before` revokes the tokens of a subject issued before a time (seconds since 1970), and
///   those without `iat`.
///
/// The value extends to the end of the line. Internal tokens are exempt: the user's token was
/// checked at the gateway, and accepted work must finish.
///
/// If a changed file cannot be read, the old list stays in use. Invalid lines of a readable file
/// are logged and skipped. Append lines, or replace the file by renaming.
pub struct RevocationFile {
    path: PathBuf,
    list: ArcSwap<RevocationList>,
    last_check: Mutex<LastCheck>,
    reads: metrics::Counter,
    failures: metrics::Counter,
}

/// Last check of the file.
struct LastCheck {
    at: Instant,
    version: Option<Version>,
}

/// File version: inode, length, and modification time (seconds and nanoseconds).
type Version = (u64, u64, i64, i64);

/// The revocation file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Missing or not readable.
    #[error("cannot read {0}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// More than 1 MiB.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// Invalid lines, counted from 1.
    #[error("{0}: invalid lines {1:?}")]
    Lines(PathBuf, Vec<usize>),
}

impl RevocationFile {
    /// Loads the file at `path`. At startup, an invalid line is an error.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RevocationError> {
        let path = path.into();
        // Determined before the file is read, so that a concurrent change is detected by the next
        // check.
        let version = version(&path)?;
        let (list, bad) = read(&path, version)?;
        if !bad.is_empty() {
            return Err(RevocationError::Lines(path, bad));
        }
        let read = |outcome: &'static str| palisade_resilience::counter!("palisade.revocation_list.reloads", "outcome" => outcome);
        let last_check = LastCheck { at: Instant::now(), version: Some(version) };
        Ok(Self {
            path,
            list: ArcSwap::from_pointee(list),
            last_check: Mutex::new(last_check),
            reads: read("ok"),
            failures: read("failed"),
        })
    }

    /// Reloads the file if it has changed. A check is a system call: one request per second makes
    /// it, and others do not wait.
    fn reload_if_changed(&self, now: Instant) {
        let Some(mut last_check) = self.last_check.try_lock() else { return };
        if now.saturating_duration_since(last_check.at) < RELOAD_INTERVAL {
            return;
        }
        last_check.at = now;
        let current = version(&self.path);
        let previous = std::mem::replace(&mut last_check.version, current.as_ref().ok().copied());
        match current.and_then(|found| if previous == Some(found) { Ok(None) } else { read(&self.path, found).map(Some) }) {
            Ok(None) => {}
            Ok(Some((list, bad))) => {
                tracing::info!(path = %self.path.display(), revocations = list.len(), "revocation list reloaded");
                self.list.store(list.into());
                if bad.is_empty() {
                    self.reads.increment(1);
                } else {
                    self.record_failure(&RevocationError::Lines(self.path.clone(), bad));
                }
            }
            // Logged once, not every second.
            Err(_) if previous.is_none() => {}
            Err(error) => self.record_failure(&error),
        }
    }

    fn record_failure(&self, error: &RevocationError) {
        self.failures.increment(1);
        tracing::error!(error = error as &dyn std::error::Error, "cannot reload revocation file");
    }
}

impl Revocations for RevocationFile {
    fn is_revoked(&self, principal: &Principal) -> bool {
        self.reload_if_changed(Instant::now());
        principal.actor.is_none() && self.list.load().contains(principal)
    }
}

impl fmt::Debug for RevocationFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevocationFile").field("path", &self.path).field("revocations", &self.list.load().len()).finish_non_exhaustive()
    }
}

fn version(path: &Path) -> Result<Version, RevocationError> {
    let file = fs::metadata(path).map_err(|error| RevocationError::Unreadable(path.to_owned(), error))?;
    Ok((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

fn read(path: &Path, (_, size, ..): Version) -> Result<(RevocationList, Vec<usize>), RevocationError> {
    if size > MAX_BYTES {
        return Err(RevocationError::TooLarge(path.to_owned()));
    }
    let text = fs::read_to_string(path).map_err(|error| RevocationError::Unreadable(path.to_owned(), error))?;
    Ok(RevocationList::parse(&text))
}

#[cfg(test)]
mod tests;
