//! Answers to reads of products that are kept for a while: bounded, loaded once however many ask, outdated by what products tells of its changes,
//! and still of use when products does not answer.
//!
//! It stands behind the checks of who may ask, and holds only what is the same for all who may. Off unless `cache.ttl_ms` is set. Refusals, those of
//! what does not exist among them, are never kept: who asks at the same time shares one, and that is all.

mod answer;
mod config;
mod flights;
mod read;
mod second_level;
mod store;
mod upkeep;

use std::{future::Future, sync::Arc, time::Duration};

use palisade_middleware::{config::Error, rejection::Rejection, task};
use palisade_proto::products::v1::FindAllRequest;
use tonic::Status;
use uuid::Uuid;

use self::{second_level::SecondLevel, store::Store};
use crate::metrics::{self, Cause};

pub(crate) use answer::{Found, NoCache, Representation};
pub use config::Config;
pub use upkeep::Upkeep;

/// See the module. Cheap to clone; clones share what is kept.
#[derive(Debug, Clone, Default)]
pub struct Cache(Option<Arc<Shared>>);

/// Above all versions that there are, below that of what is gone.
const UNKNOWN: i64 = i64::MAX - 1;

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// One product.
    Product(Uuid),
    /// A page of a list.
    Page(Arc<FindAllRequest>),
}

/// The version of a product that a change has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// This one.
    Is(i64),
    /// None any more.
    Gone,
    /// It may have changed.
    Unknown,
}

/// A change that products is asked for. Dropped, whatever came of it, it outdates what was kept.
#[derive(Debug)]
struct Change {
    shared: Arc<Shared>,
    product: Option<Uuid>,
    to: Version,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    /// How long products may take when there is a stale answer.
    patience: Duration,
    second_level: Option<Arc<SecondLevel>>,
}

impl Cache {
    /// A cache as `config` wants it, and what has to run beside it; the latter is `None` if nothing is kept.
    pub fn new(config: &Config) -> Result<(Self, Option<Upkeep>), Error> {
        if !config.is_on() {
            return Ok((Self::default(), None));
        }
        let second_level = config.redis()?.map(|client| SecondLevel::new(client, config));
        let (second_level, changes) = second_level.unzip();
        let shared = Arc::new(Shared { store: Store::new(config), patience: Duration::from_millis(config.patience_ms), second_level });
        Ok((Self(Some(shared.clone())), Some(Upkeep::new(shared, changes))))
    }

    /// Whether anything is kept.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The answer to `key`: one that is kept, or that of `load`, which asks products. With `no_cache` nothing that is kept will do.
    pub(crate) async fn read<L>(&self, key: Key, no_cache: NoCache, load: L) -> Result<Found, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        match &self.0 {
            Some(shared) => shared.read(key, no_cache, load).await,
            None => load.await.map(Found::Uncached),
        }
    }

    /// Has `work` change this product, or make one, and tell which version it led to; what was kept is outdated when it is over. It goes on when its
    /// caller gives up: outdated before products has changed it, the old product would be kept once more.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        product: Option<Uuid>,
        work: impl Future<Output = Result<(Version, T), Rejection>> + Send + 'static,
    ) -> Result<T, Rejection> {
        let Some(shared) = &self.0 else { return Ok(work.await?.1) };
        let change = Change { shared: shared.clone(), product, to: Version::Unknown };
        let work = async move {
            // The whole of it comes along.
            let mut change = change;
            let (to, done) = work.await?;
            change.to = to;
            Ok(done)
        };
        task::detached(work).await
    }
}

impl Shared {
    /// What is kept of this product, if it is older, and all pages are outdated.
    fn outdate(&self, product: Option<Uuid>, to: Version, cause: Cause) {
        metrics::invalidations(cause).increment(1);
        self.store.outdate(product, to);
        if let (Some(second_level), Some(id)) = (&self.second_level, product) {
            second_level.outdate(id, to);
        }
    }

    /// Everything that is kept is outdated.
    fn outdate_all(&self) {
        metrics::invalidations(Cause::Missed).increment(1);
        self.store.outdate_all();
        if let Some(second_level) = &self.second_level {
            second_level.outdate_all();
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.shared.outdate(self.product, self.to, Cause::Write);
    }
}

impl Version {
    /// Whether this is newer than `version`.
    fn outdates(self, version: i64) -> bool {
        version < self.floor()
    }

    /// The least version that may be current.
    fn floor(self) -> i64 {
        match self {
            Self::Is(version) => version,
            Self::Unknown => UNKNOWN,
            Self::Gone => i64::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
