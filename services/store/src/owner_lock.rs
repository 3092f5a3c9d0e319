//! Lock of the only process that runs a service on a database file.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use parking_lot::Mutex;

/// Lock of the file `<path>-owner`, held while this process is the only one that runs the service
/// on the database. The operating system releases it when a process ends, however it ends.
#[derive(Debug)]
pub struct OwnerLock {
    path: PathBuf,
    held: Mutex<Option<File>>,
}

impl OwnerLock {
    /// Creates the lock of the database at `path`, not held.
    pub fn new(path: PathBuf) -> Self {
        Self { path, held: Mutex::default() }
    }

    /// Acquires the lock unless this process holds it. Returns `false` if another process does, or
    /// if the lock file cannot be written.
    pub fn is_only_owner(&self) -> bool {
        let mut held = self.held.lock();
        if held.is_none() {
            let mut name = self.path.clone().into_os_string();
            name.push("-owner");
            let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name);
            *held = opened.ok().filter(|file| file.try_lock().is_ok());
        }
        held.is_some()
    }
}
