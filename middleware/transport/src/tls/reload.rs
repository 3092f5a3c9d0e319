//! Certificate reload: rebuilds a value when its files change, because certificates expire within
//! the lifetime of a process.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{Error, files::File};
use palisade_resilience::{
    job::{self, Heartbeat},
    task,
};

/// Value built from the last valid files. Polling stops when the last reference is dropped.
pub(super) struct Reloading<T>(ArcSwap<T>);

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloaded")
    }
}

/// Sets the expiry gauge, which drives the alert before expiry.
fn record_expiry(certificate: &'static str, seconds: Option<i64>) {
    #[expect(clippy::cast_precision_loss, reason = "Unix seconds")]
    if let Some(seconds) = seconds {
        palisade_resilience::gauge!("palisade.tls.certificate.expiry", "certificate" => certificate).set(seconds as f64);
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<File>, Error> {
    paths.iter().map(|path| File::read(path)).collect()
}

/// Builds a value once from the current files.
pub(super) fn build_once<T>(paths: &[PathBuf], build: impl Fn(&[File]) -> Result<T, Error>) -> Result<T, Error> {
    build(&read(paths)?)
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Builds a value from the files at `paths`, passed to `build` in this order, and polls them
    /// every `interval` for changes. `build` also returns the expiry of the certificate.
    /// `certificate` is the metric label. Must be called within a tokio runtime.
    pub(super) fn start<F>(certificate: &'static str, paths: Vec<PathBuf>, interval: Duration, build: F) -> Result<Arc<Self>, Error>
    where
        F: Fn(&[File]) -> Result<(T, Option<i64>), Error> + Send + Sync + 'static,
    {
        let build = move |files: &[File]| {
            let (value, expiry) = build(files)?;
            record_expiry(certificate, expiry);
            Ok(value)
        };
        let current = read(&paths)?;
        let reloading = Arc::new(Self(ArcSwap::from_pointee(build(&current)?)));
        let outcome = |outcome: &'static str| palisade_resilience::counter!("palisade.tls.reloads", "certificate" => certificate, "outcome" => outcome);
        let files = Arc::new(Files {
            certificate,
            paths,
            build,
            current: Mutex::new(current.into()),
            failing: AtomicBool::new(false),
            loaded: outcome("ok"),
            failed: outcome("failed"),
        });
        let (weak, stop) = (Arc::downgrade(&reloading), CancellationToken::new());
        let stopping = stop.clone();
        let poll = move |heartbeat: Heartbeat| {
            let (files, weak, stop) = (files.clone(), weak.clone(), stopping.clone());
            async move {
                loop {
                    heartbeat.pause(tokio::time::sleep(interval)).await;
                    let Some(held) = weak.upgrade() else {
                        stop.cancel();
                        return Ok(());
                    };
                    files.poll(&held).await?;
                    heartbeat.success();
                }
            }
        };
        drop(task::spawn(job::supervise(Heartbeat::new(format!("tls.{certificate}")), stop, poll)));
        Ok(reloading)
    }

    pub(super) fn load(&self) -> Arc<T> {
        self.0.load_full()
    }
}

/// Files of a [`Reloading`] value, as last read.
struct Files<F> {
    certificate: &'static str,
    paths: Vec<PathBuf>,
    build: F,
    current: Mutex<Arc<[File]>>,
    /// Whether the last reload failed, which is logged once.
    failing: AtomicBool,
    loaded: metrics::Counter,
    failed: metrics::Counter,
}

impl<F> Files<F> {
    /// Reads the files and rebuilds `held` if they have changed. Fails if the reader panicked.
    async fn poll<T>(&self, held: &Reloading<T>) -> Result<(), tokio::task::JoinError>
    where
        F: Fn(&[File]) -> Result<T, Error>,
    {
        let paths = self.paths.clone();
        let latest = tokio::task::spawn_blocking(move || read(&paths)).await?;
        let result = match latest {
            // Skips unchanged files, including a version that already failed.
            Ok(now) if *now == **self.current.lock() => return Ok(()),
            Ok(now) => {
                // First, so that files that cannot be built are not built again.
                let now: Arc<[File]> = now.into();
                self.current.lock().clone_from(&now);
                (self.build)(&now)
            }
            Err(error) => Err(error),
        };
        let certificate = self.certificate;
        match result {
            Ok(value) => {
                held.0.store(Arc::new(value));
                self.loaded.increment(1);
                self.failing.store(false, Ordering::Release);
                tracing::info!(certificate, "certificates reloaded");
            }
            Err(error) => {
                self.failed.increment(1);
                // Logs once per series of failures: for a moment only one of two files may be
                // replaced.
                if !self.failing.swap(true, Ordering::AcqRel) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(certificate, error, "cannot reload certificates, keeping the old ones");
                }
            }
        }
        Ok(())
    }
}
