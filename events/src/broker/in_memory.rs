//! Events within one process: whoever listens gets them, and nothing is kept.

use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast;

use super::Outcome;
use crate::event::Event;

/// Who is further behind than this has missed some.
const CHANNEL_CAPACITY: usize = 1_024;

/// One for the process, as its services find each other without being told.
static CHANNEL: LazyLock<broadcast::Sender<Arc<Event>>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL_CAPACITY));

pub(super) fn publish(events: &[Event]) -> Vec<Outcome> {
    let publish_one = |event: &Event| {
        // Nobody listening is as good as told.
        let _ = CHANNEL.send(Arc::new(event.clone()));
        Outcome::Published
    };
    events.iter().map(publish_one).collect()
}

pub(super) fn subscribe() -> broadcast::Receiver<Arc<Event>> {
    CHANNEL.subscribe()
}
