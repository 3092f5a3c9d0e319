//! Read path of the cache: fresh entry, Redis, products, then stale-if-error.

use std::{future::Future, sync::Arc};

use palisade_middleware::{
    context::{self, Context},
    task,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{
    Key, Shared,
    response::{CacheResult, CacheStatus, FwdReason, NoCache, Representation, STALE_IF_ERROR, STALE_WHILE_REVALIDATE},
    single_flight::{LoadGuard, Loaded},
    store::{Entry, WithAge},
};
use crate::metrics::{self, Lookup};

/// Whether a stale entry may replace this error (stale-if-error): products could not answer. A
/// definite error such as `NOT_FOUND` is an answer and is returned.
pub(super) fn allows_stale_if_error(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled)
}

/// Whether this error concerns only the caller that started the load. Other waiting callers then
/// send their own request.
fn is_caller_specific(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated)
}

impl Shared {
    pub(super) async fn read<L>(self: &Arc<Self>, key: Key, NoCache(no_cache): NoCache, load: L) -> Result<CacheResult, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        let cached = self.store.get(&key).filter(|_| !no_cache);
        if let Some(entry) = cached.clone().filter(|entry| self.store.is_fresh(&key, entry)) {
            return Ok(self.cached(Lookup::Hit, entry, CacheStatus::Hit));
        }
        let why = match &cached {
            _ if no_cache => FwdReason::Request,
            Some(_) => FwdReason::Stale,
            None => FwdReason::Miss,
        };
        let (mut in_flight, guard) = self.store.loads().join(&key, no_cache);
        let own_load = match guard {
            Some(guard) => {
                self.spawn_load(guard, no_cache, load);
                None
            }
            None => Some(load),
        };
        let collapsed = own_load.is_some();
        let outcome = match cached {
            Some(entry) if !self.store.is_invalidated(&key, &entry) => {
                let Ok(outcome) = timeout_at(self.soft_timeout_at(in_flight.started), in_flight.outcome()).await else {
                    return Ok(self.cached(Lookup::Stale, entry, CacheStatus::Stale(STALE_WHILE_REVALIDATE)));
                };
                outcome
            }
            // An invalidated entry is served only if the load fails.
            _ => in_flight.outcome().await,
        };
        let lookup = if no_cache { Lookup::Bypass } else { Lookup::Miss };
        match outcome {
            Ok(Loaded { entry, is_from_redis: true, .. }) => Ok(self.cached(Lookup::Shared, entry, CacheStatus::Shared)),
            Ok(Loaded { entry, is_stored: is_kept, .. }) => {
                Ok(self.cached(lookup, entry, CacheStatus::Forwarded { why, stored: is_kept, collapsed }))
            }
            Err(status) => {
                if let Some(entry) = self.store.get(&key).filter(|_| !no_cache && allows_stale_if_error(&status)) {
                    return Ok(self.cached(Lookup::Stale, entry, CacheStatus::Stale(STALE_IF_ERROR)));
                }
                metrics::lookups(lookup).increment(1);
                match own_load.filter(|_| is_caller_specific(&status)) {
                    Some(own) => Ok(CacheResult::Uncached(own.await?)),
                    None => Err(status),
                }
            }
        }
    }

    fn cached(&self, lookup: Lookup, entry: Arc<Entry>, how: CacheStatus) -> CacheResult {
        metrics::lookups(lookup).increment(1);
        CacheResult::Cached { entry, how, fresh: self.store.ttl }
    }

    /// Returns the time at which a stale entry is served: the soft timeout, or half of the caller's
    /// remaining deadline if that is earlier.
    fn soft_timeout_at(&self, started: Instant) -> Instant {
        let soft_deadline = started + self.soft_timeout;
        let deadline = context::current().and_then(|context| context.deadline);
        deadline
            .map_or(soft_deadline, |deadline| soft_deadline.min(Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2))
    }

    /// Runs a load independently of the waiting callers: with the identity of the first one, but
    /// without its deadline and its attempt count.
    fn spawn_load<L>(self: &Arc<Self>, guard: LoadGuard, no_cache: bool, load: L)
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        let shared = self.clone();
        let context = context::current().unwrap_or_else(Context::background);
        let load = context::scope(Context { deadline: None, previous_attempts: 0, ..context }, load);
        drop(task::spawn(async move { shared.run_load(guard, no_cache, load).await }));
    }

    async fn run_load(&self, guard: LoadGuard, no_cache: bool, load: impl Future<Output = Result<Representation, Status>>) {
        let key = guard.key().clone();
        let mut fallback = None;
        if !no_cache {
            // Another load may have completed since the lookup.
            if let Some(entry) = self.store.get(&key).filter(|entry| self.store.is_fresh(&key, entry)) {
                return guard.complete(|_, _| Ok(Loaded { entry, is_stored: true, is_from_redis: false }));
            }
            fallback = self.get_from_redis(&key).await;
            if let Some(stored) = fallback.take_if(|(_, age)| *age < self.store.ttl) {
                return self.store.complete_from_redis(guard, stored);
            }
        }
        let result = load.await;
        let loaded = result.as_ref().ok().cloned();
        let is_kept = self.store.complete(guard, result, fallback);
        if let (Key::Product(id), Some(second_level), Some(Representation { body, version: Some(version) })) = (key, &self.redis, loaded)
            && is_kept
        {
            second_level.set(id, version, &body).await;
        }
    }

    async fn get_from_redis(&self, key: &Key) -> Option<WithAge> {
        let (Key::Product(id), Some(second_level)) = (key, &self.redis) else { return None };
        let stored = second_level.get(*id).await?;
        Some((Representation { body: stored.body, version: Some(stored.version) }, stored.age))
    }
}
