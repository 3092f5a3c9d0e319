//! What is made from files, and made anew when they change: certificates live for days, processes for weeks.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use super::{Error, files::File};
use crate::task;

/// What was made from files last. The files are looked at as long as somebody holds it.
pub(super) struct Reloading<T>(ArcSwap<T>);

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloaded")
    }
}

/// For the alert that comes before.
fn record_expiry(certificate: &'static str, seconds: Option<i64>) {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    if let Some(seconds) = seconds {
        metrics::gauge!("palisade.tls.certificate.expiry", "certificate" => certificate).set(seconds as f64);
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<File>, Error> {
    paths.iter().map(|path| File::read(path)).collect()
}

/// Made once, of the files as they are now.
pub(super) fn build_once<T>(paths: &[PathBuf], build: impl Fn(&[File]) -> Result<T, Error>) -> Result<T, Error> {
    build(&read(paths)?)
}

impl<T: Send + Sync + 'static> Reloading<T> {
    /// Made of the files at `paths`, which `make` gets in this order, and looked at again so often. It also says when the certificate ends. `certificate` is its name in metrics.
    /// Must be called within a tokio runtime.
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
                    // Not again what was no use the first time.
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
                        tracing::info!(certificate, "certificates were read again");
                    }
                    Err(error) => {
                        failed.increment(1);
                        // Once for each time that it goes wrong, not every few seconds: half of two files may be there for a moment.
                        if !std::mem::replace(&mut logged, true) {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(certificate, error, "new certificates cannot be used, the old ones are kept");
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
