//! A read: what is kept, or what products says, or what was kept if products says nothing.

use std::{future::Future, sync::Arc};

use palisade_middleware::{
    context::{self, Context},
    task,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{
    Key, Shared,
    answer::{Found, How, IF_ERROR, NoCache, Representation, WHILE_REVALIDATE, Why},
    flights::{Leader, Loaded},
    store::{Aged, Entry},
};
use crate::metrics::{self, Lookup};

/// Whether a stale answer is better than this refusal: products could not say anything. What it does say is an answer.
pub(super) fn excuses_stale(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Internal | Code::Unknown | Code::Cancelled)
}

/// Whether this refusal is for whoever asked alone: who waited for the same answer has to ask for himself.
fn is_about_the_caller(status: &Status) -> bool {
    matches!(status.code(), Code::ResourceExhausted | Code::PermissionDenied | Code::Unauthenticated)
}

impl Shared {
    pub(super) async fn read<L>(self: &Arc<Self>, key: Key, NoCache(no_cache): NoCache, load: L) -> Result<Found, Status>
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        let kept = self.store.get(&key).filter(|_| !no_cache);
        if let Some(entry) = kept.clone().filter(|entry| self.store.is_fresh(&key, entry)) {
            return Ok(self.found(Lookup::Hit, entry, How::Hit));
        }
        let why = match &kept {
            _ if no_cache => Why::Request,
            Some(_) => Why::Stale,
            None => Why::Miss,
        };
        let (mut flight, leader) = self.store.flights().join(&key, no_cache);
        let own = match leader {
            Some(leader) => {
                self.load(leader, no_cache, load);
                None
            }
            None => Some(load),
        };
        let collapsed = own.is_some();
        let outcome = match kept {
            Some(entry) if !self.store.is_outdated(&key, &entry) => {
                let Ok(outcome) = timeout_at(self.give_up(flight.started), flight.outcome()).await else {
                    return Ok(self.found(Lookup::Stale, entry, How::Stale(WHILE_REVALIDATE)));
                };
                outcome
            }
            // What is known to be outdated is only for when there is nothing else.
            _ => flight.outcome().await,
        };
        let lookup = if no_cache { Lookup::Bypass } else { Lookup::Miss };
        match outcome {
            Ok(Loaded { entry, is_shared: true, .. }) => Ok(self.found(Lookup::Shared, entry, How::Shared)),
            Ok(Loaded { entry, is_kept, .. }) => Ok(self.found(lookup, entry, How::Forwarded { why, stored: is_kept, collapsed })),
            Err(status) => {
                if let Some(entry) = self.store.get(&key).filter(|_| !no_cache && excuses_stale(&status)) {
                    return Ok(self.found(Lookup::Stale, entry, How::Stale(IF_ERROR)));
                }
                metrics::lookups(lookup).increment(1);
                match own.filter(|_| is_about_the_caller(&status)) {
                    Some(own) => Ok(Found::Uncached(own.await?)),
                    None => Err(status),
                }
            }
        }
    }

    fn found(&self, lookup: Lookup, entry: Arc<Entry>, how: How) -> Found {
        metrics::lookups(lookup).increment(1);
        Found::Cached { entry, how, fresh: self.store.fresh }
    }

    /// When a stale answer will do: in time for a caller who does not wait for long.
    fn give_up(&self, started: Instant) -> Instant {
        let patient = started + self.patience;
        let deadline = context::current().and_then(|context| context.deadline);
        deadline.map_or(patient, |deadline| patient.min(Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2))
    }

    /// Carries a load out, whatever becomes of those who wait for it: as the one of them who came first, but with all the time, and all the attempts,
    /// that a call has.
    fn load<L>(self: &Arc<Self>, leader: Leader, no_cache: bool, load: L)
    where
        L: Future<Output = Result<Representation, Status>> + Send + 'static,
    {
        let shared = self.clone();
        let context = context::current().unwrap_or_else(Context::background);
        let load = context::scope(Context { deadline: None, previous_attempts: 0, ..context }, load);
        drop(task::spawn(async move { shared.carry_out(leader, no_cache, load).await }));
    }

    async fn carry_out(&self, leader: Leader, no_cache: bool, load: impl Future<Output = Result<Representation, Status>>) {
        let key = leader.key().clone();
        let mut spare = None;
        if !no_cache {
            // Another load may have landed between the look and this one.
            if let Some(entry) = self.store.get(&key).filter(|entry| self.store.is_fresh(&key, entry)) {
                return leader.land(|_, _| Ok(Loaded { entry, is_kept: true, is_shared: false }));
            }
            spare = self.left_by_others(&key).await;
            if let Some(left) = spare.take_if(|(_, age)| *age < self.store.fresh) {
                return self.store.land_shared(leader, left);
            }
        }
        let answer = load.await;
        let ours = answer.as_ref().ok().cloned();
        let is_kept = self.store.land(leader, answer, spare);
        if let (Key::Product(id), Some(second_level), Some(Representation { body, version: Some(version) })) =
            (key, &self.second_level, ours)
            && is_kept
        {
            second_level.set(id, version, &body).await;
        }
    }

    async fn left_by_others(&self, key: &Key) -> Option<Aged> {
        let (Key::Product(id), Some(second_level)) = (key, &self.second_level) else { return None };
        let left = second_level.get(*id).await?;
        Some((Representation { body: left.body, version: Some(left.version) }, left.age))
    }
}
