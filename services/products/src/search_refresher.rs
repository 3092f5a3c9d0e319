//! Refresh of the search data: of products stored by a previous release, and of those that its
//! replicas write during an upgrade.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::store::{Error, ProductStore};

/// Maximum number of products per store call; keeps each call short.
const BATCH: u32 = 200;
/// Pause between two passes over the catalogue.
const PAUSE: Duration = Duration::from_mins(5);

/// Passes over the catalogue until `stop`. A failed pass is repeated after the pause.
pub async fn run(store: Arc<dyn ProductStore>, stop: CancellationToken) {
    let passes = async {
        loop {
            if let Err(error) = pass(&*store).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "refresh of search data failed, retrying later");
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _ = stop.run_until_cancelled(passes).await;
}

async fn pass(store: &dyn ProductStore) -> Result<(), Error> {
    let mut after = None;
    while let Some(last) = store.refresh_search(after, BATCH).await? {
        after = Some(last);
    }
    Ok(())
}
