//! Certificate reload: rebuilds a value when its files change, because certificates expire within
//! the lifetime of a process.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use super::{Error, files::File};
use palisade_resilience::task;

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
        metrics::gauge!("palisade.tls.certificate.expiry", "certificate" => certificate).set(seconds as f64);
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
        let mut current = read(&paths)?;
        let reloading = Arc::new(Self(ArcSwap::from_pointee(build(&current)?)));
        let outcome = |outcome: &'static str| metrics::counter!("palisade.tls.reloads", "certificate" => certificate, "outcome" => outcome);
        let (loaded, failed) = (outcome("ok"), outcome("failed"));
        let weak = Arc::downgrade(&reloading);
        drop(task::spawn(async move {
            let mut logged = false;
            loop {
                tokio::time::sleep(interval).await;
                let paths = paths.clone();
                let Ok(latest) = tokio::task::spawn_blocking(move || read(&paths)).await else { return };
                let Some(held) = weak.upgrade() else { return };
                let result = match latest {
                    // Skips unchanged files, including a version that already failed.
                    Ok(now) if now == current => continue,
                    Ok(now) => {
                        let value = build(&now);
                        current = now;
                        value
                    }
                    Err(error) => Err(error),
                };
                match result {
                    Ok(value) => {
                        held.0.store(Arc::new(value));
                        loaded.increment(1);
                        logged = false;
                        tracing::info!(certificate, "certificates reloaded");
                    }
                    Err(error) => {
                        failed.increment(1);
                        // Logs once per series of failures: for a moment only one of two files may
                        // be replaced.
                        if !std::mem::replace(&mut logged, true) {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(certificate, error, "cannot reload certificates, keeping the old ones");
                        }
                    }
                }
            }
        }));
        Ok(reloading)
    }

    pub(super) fn load(&self) -> Arc<T> {
        self.0.load_full()
    }
}
