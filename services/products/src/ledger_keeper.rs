//! Upkeep of the stock ledger: reconciles it with the products, and replaces entries past their
//! retention.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{
    clock::{self, Clock},
    job,
    jobs::Run,
};

use crate::store::{Error, Store};

/// Maximum number of products or entries per store call; keeps each call short.
const BATCH: u32 = 200;
/// Pause between two passes.
const PAUSE: Duration = Duration::from_mins(5);

/// Passes over the ledger until the stop. A failed pass is repeated after the pause. A `retention`
/// of `None` keeps all entries.
pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, retention: Option<Duration>, Run { heartbeat, stop }: Run) -> job::Result {
    let passes = async {
        loop {
            // Apart: a failure of one does not stop the other.
            let reconciled = reconcile(&*store).await;
            let folded = fold(&*store, &*clock, retention).await;
            heartbeat.record(reconciled.and(folded));
            heartbeat.pause(tokio::time::sleep(PAUSE)).await;
        }
    };
    stop.run_until_cancelled(passes).await;
    Ok(())
}

async fn reconcile(store: &dyn Store) -> Result<(), Error> {
    let mut after = None;
    while let Some(last) = store.reconcile_ledger(after, BATCH).await? {
        after = Some(last);
    }
    Ok(())
}

async fn fold(store: &dyn Store, clock: &dyn Clock, retention: Option<Duration>) -> Result<(), Error> {
    let Some(retention) = retention else { return Ok(()) };
    let before = clock::before(clock.now(), retention);
    while store.fold_ledger(before, BATCH).await? > 0 {}
    Ok(())
}
