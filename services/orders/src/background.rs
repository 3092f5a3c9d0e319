//! Background jobs of the orders service and their order: the store is prepared first.

use std::{sync::Arc, time::Duration};

use palisade_events::{Broker, Relay, Topic};
use palisade_middleware::{
    clock::Clock,
    job,
    jobs::{JobHealth, Jobs, Need},
};

use crate::{
    audit::{self, Audit},
    config::Config,
    fulfiller::Fulfiller,
    housekeeping::Housekeeping,
    relay,
    retention::{Lifetimes, Retention},
    store::Store,
    watch::OrderWatchers,
    worker::Worker,
};

/// Parts that the background jobs use.
pub(crate) struct Background {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) broker: Broker,
    pub(crate) watchers: OrderWatchers,
    pub(crate) worker: Worker,
    pub(crate) fulfiller: Fulfiller,
    pub(crate) audit: Audit,
}

impl Background {
    /// Starts all jobs. Returns the health of the saga worker.
    pub(crate) fn start(self, jobs: &Jobs, config: &Config) -> JobHealth {
        let (store, clock, migrate) = (self.store.clone(), self.worker.clock.clone(), config.store.migrate);
        let prepared = &jobs.prepare("orders.store", move || prepare(store.clone(), clock.clone(), migrate));

        let worker = jobs.supervise_after(prepared, ("orders.worker", Need::Required), self.worker.clone(), Worker::run);
        jobs.supervise_after(prepared, ("orders.fulfiller", Need::Optional), self.fulfiller, Fulfiller::run);
        let relay = self.relay;
        jobs.supervise_after(prepared, ("orders.relay", Need::Optional), relay, |relay, run| async move {
            relay.run(&run.heartbeat, &run.stop).await;
            Ok(())
        });
        let housekeeping = Housekeeping { store: self.store.clone(), clock: self.worker.clock.clone(), lifetimes: Lifetimes::new(config) };
        let archive = config.retention.archive_dir.as_deref();
        let retention = Retention::new(self.store.clone(), self.worker.clock.clone(), housekeeping.lifetimes, archive);
        jobs.supervise_after(prepared, ("orders.retention", Need::Optional), retention, Retention::run);
        jobs.supervise_after(prepared, ("orders.cleanup", Need::Optional), housekeeping.clone(), Housekeeping::run_cleanup);
        jobs.supervise_after(prepared, ("orders.stats", Need::Optional), housekeeping, Housekeeping::run_stats);
        let notified = (self.watchers.clone(), self.broker);
        jobs.supervise_after(prepared, ("orders.notifications", Need::Optional), notified, |(watchers, broker), run| {
            relay::notify_watchers(watchers, broker.subscribe(Topic::ORDERS), run)
        });
        let (polled, interval) = ((self.watchers, self.store), Duration::from_millis(config.watch.poll_interval_ms));
        jobs.supervise_after(prepared, ("orders.watch", Need::Optional), polled, move |(watchers, store), run| {
            watchers.poll_versions(store, interval, run)
        });
        if config.audit.interval_s > 0 {
            let settings = config.audit.clone();
            jobs.supervise_after(prepared, ("orders.audit", Need::Optional), self.audit, move |audit, run| {
                audit::run_loop(audit, settings.clone(), run)
            });
        }
        worker
    }
}

/// Prepares the store, with retries by the supervisor, so that the process starts while its
/// database is down.
async fn prepare(store: Arc<dyn Store>, clock: Arc<dyn Clock>, migrate: bool) -> job::Result {
    if migrate {
        store.migrate().await?;
    }
    let due = store.take_over(clock.now()).await?;
    if due > 0 {
        tracing::info!(orders = due, "took over the orders of a process that no longer runs");
    }
    Ok(())
}
