//! Good tokens that are refused nevertheless: stolen ones, those of people who left, all that somebody had before logging out everywhere.

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

/// How often the file is looked at, at most: how long a new line may take to be heeded.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// A line can go when the token has expired, so a list stays short: this is some 20,000 lines.
const MAX_BYTES: u64 = 1024 * 1024;

/// Says which tokens are refused though they are good.
pub trait Revocations: Send + Sync + fmt::Debug {
    /// Whether whoever bears a token that says this is refused. Asked for every request: must be quick and must not wait.
    fn is_revoked(&self, principal: &Principal) -> bool;
}

/// A file of revoked tokens and subjects. It is looked at again while requests come, once a second, and read when it has changed.
///
/// A line each; blank lines and those that begin with `#` are nothing:
///
/// ```text
/// jti 0192f0c1-2345-7abc-8def-0123456789ab
/// sub mallory
/// sub-before 1767225600 alice
/// ```
///
/// `jti` refuses one token, `sub` all of a subject, `sub-before` those of a subject that were issued before a time (seconds since 1970)
/// or do not say when. What follows is the value, to the end of the line. Tokens that services make for each other are not looked at:
/// the user's own was, where it came in, and work that was accepted must be finished.
///
/// While a changed file cannot be read the old list stays. Of one with lines that mean nothing the others count, and the log says which
/// do not: add lines at the end, or put a new file in its place by renaming.
pub struct RevocationFile {
    path: PathBuf,
    list: ArcSwap<RevocationList>,
    last_check: Mutex<LastCheck>,
    reads: metrics::Counter,
    failures: metrics::Counter,
}

/// The last look at the file.
struct LastCheck {
    at: Instant,
    version: Option<Version>,
}

/// What changes when a file does: inode, length, and when it was written (seconds and nanoseconds).
type Version = (u64, u64, i64, i64);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    /// Not there, or not for us.
    #[error("{0} cannot be read")]
    Unreadable(PathBuf, #[source] io::Error),
    /// More than 1 MiB.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// Lines that are no revocation, counted from 1.
    #[error("{0}: not understood: line {1:?}")]
    Lines(PathBuf, Vec<usize>),
}

impl RevocationFile {
    /// Reads the file at `path`. Here a line that means nothing is an error.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RevocationError> {
        let path = path.into();
        // Before it is read: what is written meanwhile is seen at the next look.
        let version = version(&path)?;
        let (list, bad) = read(&path, version)?;
        if !bad.is_empty() {
            return Err(RevocationError::Lines(path, bad));
        }
        let read = |outcome: &'static str| metrics::counter!("palisade.auth.revocations.reads", "outcome" => outcome);
        let last_check = LastCheck { at: Instant::now(), version: Some(version) };
        Ok(Self { path, list: ArcSwap::from_pointee(list), last_check: Mutex::new(last_check), reads: read("ok"), failures: read("failed") })
    }

    /// Reads the file again if it has changed. A look is a system call, so one request a second makes it, and no other waits.
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
                tracing::info!(path = %self.path.display(), revocations = list.len(), "the revocations were read");
                self.list.store(list.into());
                if bad.is_empty() {
                    self.reads.increment(1);
                } else {
                    self.record_failure(&RevocationError::Lines(self.path.clone(), bad));
                }
            }
            // Told once, not every second.
            Err(_) if previous.is_none() => {}
            Err(error) => self.record_failure(&error),
        }
    }

    fn record_failure(&self, error: &RevocationError) {
        self.failures.increment(1);
        tracing::error!(error = error as &dyn std::error::Error, "revocations are not heeded");
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
