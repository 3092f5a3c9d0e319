//! Archive of deleted orders: one file of newline-delimited JSON per day, one line per order.
//!
//! An order is written and synced before it is deleted, so that a crash in between repeats it, and
//! never loses it. A lock on the directory excludes writers of other processes.

mod files;
mod line;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use time::OffsetDateTime;
use tokio::task::spawn_blocking;

use crate::store::SettledOrder;

/// Archive directory, which must exist: a missing one is most likely a volume that is not mounted.
#[derive(Debug, Clone)]
pub struct Archive {
    directory: Arc<Path>,
}

/// Exclusive access to an archive, until it is dropped. Clones share it.
#[derive(Debug, Clone)]
pub struct LockedArchive {
    directory: Arc<Path>,
    _lock: Arc<File>,
}

/// Archive error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system failed.
    #[error("cannot use the archive {}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A line is not JSON. Something else than this service has changed the file.
    #[error("line {line} of the archive {} is not JSON", path.display())]
    Corrupt {
        /// File.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// Cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Archive {
    /// Creates the archive in `directory`. Does not access it.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.into() }
    }

    /// Locks the archive. Returns `None` if another process has locked it.
    pub async fn try_lock(&self) -> Result<Option<LockedArchive>, Error> {
        let directory = self.directory.clone();
        let locked = blocking(move || files::try_lock(&directory)).await?;
        Ok(locked.map(|lock| LockedArchive { directory: self.directory.clone(), _lock: Arc::new(lock) }))
    }

    /// Locks the archive, after waiting for other processes.
    pub async fn lock(&self) -> Result<LockedArchive, Error> {
        let directory = self.directory.clone();
        let lock = blocking(move || files::lock(&directory)).await?;
        Ok(LockedArchive { directory: self.directory.clone(), _lock: Arc::new(lock) })
    }
}

impl LockedArchive {
    /// Appends `orders` to the file of the day of `now`, and syncs it. After an error the file is
    /// as before, or ends with a line that the next append removes.
    pub async fn append(&self, orders: &[SettledOrder], now: OffsetDateTime) -> Result<(), Error> {
        let (archive, lines) = (self.clone(), line::encode(orders, now));
        // The task keeps the lock, also if its caller is dropped.
        blocking(move || files::append(&archive.directory, now.date(), &lines)).await
    }

    /// Replaces `subject` by `pseudonym` in all files, each atomically, and returns the number of
    /// changed lines.
    pub async fn replace_subject(&self, subject: &str, pseudonym: &str) -> Result<u64, Error> {
        let archive = self.clone();
        let (subject, pseudonym) = (subject.to_owned(), pseudonym.to_owned());
        blocking(move || files::rewrite(&archive.directory, |line| line::replace_subject(line, &subject, &pseudonym))).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let interrupted = |_| Err(Error::Io { path: PathBuf::new(), source: io::Error::other("the file operation was interrupted") });
    spawn_blocking(work).await.unwrap_or_else(interrupted)
}
