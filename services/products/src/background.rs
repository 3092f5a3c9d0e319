//! Background jobs of the products service and their order: the store is prepared first.

use std::{sync::Arc, time::Duration};

use palisade_events::Relay;
use palisade_middleware::{
    clock::Clock,
    job,
    jobs::{Jobs, Need},
};

use crate::{admin, config::Config, ledger_keeper, search_refresher, store::Store, sweeper};

/// Starts all jobs.
pub(crate) fn start(jobs: &Jobs, store: &Arc<dyn Store>, relay: Arc<Relay>, clock: &Arc<dyn Clock>, config: &Config) {
    let state = (store.clone(), clock.clone());
    let unprepared = state.clone();
    let prepared = &jobs.prepare("products.store", move || prepare(unprepared.clone()));
    jobs.supervise_after(prepared, ("products.relay", Need::Optional), relay, |relay, run| async move {
        relay.run(&run.heartbeat, &run.stop).await;
        Ok(())
    });
    let retention = config.reservations.retention();
    let interval = Duration::from_millis(config.reservations.sweep_interval_ms);
    jobs.supervise_after(prepared, ("products.sweeper", Need::Required), state.clone(), move |(store, clock), run| {
        sweeper::run(store, clock, interval, run)
    });
    jobs.supervise_after(prepared, ("products.cleanup", Need::Optional), state.clone(), move |(store, clock), run| {
        sweeper::run_cleanup(store, clock, retention, run)
    });
    jobs.supervise_after(prepared, ("products.stats", Need::Optional), state.clone(), move |(store, clock), run| {
        sweeper::run_stats(store, clock, retention, run)
    });
    let ledger_retention = config.ledger.retention();
    jobs.supervise_after(prepared, ("products.ledger", Need::Optional), state.clone(), move |(store, clock), run| {
        ledger_keeper::run(store, clock, ledger_retention, run)
    });
    jobs.supervise_after(prepared, ("products.search", Need::Optional), store.clone(), search_refresher::run);
    if config.audit.interval_s > 0 {
        let audit = config.audit.clone();
        jobs.supervise_after(prepared, ("products.audit", Need::Optional), state, move |(store, clock), run| {
            admin::run_audit_loop(store, clock, audit.clone(), run)
        });
    }
}

/// Prepares the store, with retries by the supervisor, so that the process starts while its
/// database is down.
async fn prepare((store, clock): (Arc<dyn Store>, Arc<dyn Clock>)) -> job::Result {
    store.migrate().await?;
    store.take_over(clock.now()).await?;
    Ok(())
}
