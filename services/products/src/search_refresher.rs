//! Refresh of the search data: of products stored by a previous release, and of those that its
//! replicas write during an upgrade.

use std::{sync::Arc, time::Duration};

use palisade_middleware::{job, jobs::Run};

use crate::store::{Error, Store};

/// Maximum number of products per store call; keeps each call short.
const BATCH: u32 = 200;
/// Pause between two passes over the catalogue.
const PAUSE: Duration = Duration::from_mins(5);

/// Passes over the catalogue until the stop. A failed pass is repeated after the pause.
pub async fn run(store: Arc<dyn Store>, Run { heartbeat, stop }: Run) -> job::Result {
    let passes = async {
        loop {
            heartbeat.record(pass(&*store).await);
            heartbeat.pause(tokio::time::sleep(PAUSE)).await;
        }
    };
    stop.run_until_cancelled(passes).await;
    Ok(())
}

async fn pass(store: &dyn Store) -> Result<(), Error> {
    let mut after = None;
    while let Some(last) = store.refresh_search(after, BATCH).await? {
        after = Some(last);
    }
    Ok(())
}
