//! What is made from files, and made anew when they change: certificates live for days, processes for weeks.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use super::{Error, files::File};
use crate::task;

/// What was made from files last. The files are looked at as long as somebody holds it.
pub(super) struct Reloaded<T>(ArcSwap<T>);

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloaded")
    }
}

/// For the alert that comes before.
fn tell_expiry(certificate: &'static str, seconds: Option<i64>) {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970")]
    if let Some(seconds) = seconds {
        metrics::gauge!("palisade.tls.certificate.expiry", "certificate" => certificate).set(seconds as f64);
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<File>, Error> {
    paths.iter().map(|path| File::read(path)).collect()
}

/// Made once, of the files as they are now.
pub(super) fn once<T>(paths: &[PathBuf], make: impl Fn(&[File]) -> Result<T, Error>) -> Result<T, Error> {
    make(&read(paths)?)
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Made of the files at `paths`, which `make` gets in this order, and looked at again so often. It also says when the certificate ends. `certificate` is its name in metrics.
    /// Must be called within a tokio runtime.
    pub(super) fn start<F>(certificate: &'static str, paths: Vec<PathBuf>, every: Duration, make: F) -> Result<Arc<Self>, Error>
    where
        F: Fn(&[File]) -> Result<(T, Option<i64>), Error> + Send + Sync + 'static,
    {
        let make = move |files: &[File]| {
            let (value, expiry) = make(files)?;
            tell_expiry(certificate, expiry);
            Ok(value)
        };
        let mut seen = read(&paths)?;
        let reloaded = Arc::new(Self(ArcSwap::from_pointee(make(&seen)?)));
        let outcome = |outcome: &'static str| metrics::counter!("palisade.tls.reloads", "certificate" => certificate, "outcome" => outcome);
        let (loaded, failed) = (outcome("ok"), outcome("failed"));
        let held = Arc::downgrade(&reloaded);
        drop(task::spawn(async move {
            let mut told = false;
            loop {
                tokio::time::sleep(every).await;
                let look = paths.clone();
                let Ok(now) = tokio::task::spawn_blocking(move || read(&look)).await else { return };
                let Some(held) = held.upgrade() else { return };
                let changed = match now {
                    // Not again what was no use the first time.
                    Ok(now) if now == seen => continue,
                    Ok(now) => {
                        let value = make(&now);
                        seen = now;
                        value
                    }
                    Err(error) => Err(error),
                };
                match changed {
                    Ok(value) => {
                        held.0.store(Arc::new(value));
                        loaded.increment(1);
                        told = false;
                        tracing::info!(certificate, "certificates were read again");
                    }
                    Err(error) => {
                        failed.increment(1);
                        // Once for each time that it goes wrong, not every few seconds: half of two files may be there for a moment.
                        if !std::mem::replace(&mut told, true) {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(certificate, error, "new certificates cannot be used, the old ones are kept");
                        }
                    }
                }
            }
        }));
        Ok(reloaded)
    }

    pub(super) fn now(&self) -> Arc<T> {
        self.0.load_full()
    }
}
