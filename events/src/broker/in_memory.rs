//! In-memory event broker for one process: a broadcast channel without persistence.

use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast;

use super::Outcome;
use crate::event::Event;

/// Capacity of the channel, events. A receiver that lags further behind misses the oldest events.
const CHANNEL_CAPACITY: usize = 1_024;

/// Process-wide channel, so that services in one process need no shared handle.
static CHANNEL: LazyLock<broadcast::Sender<Arc<Event>>> = LazyLock::new(|| broadcast::Sender::new(CHANNEL_CAPACITY));

pub(super) fn publish(events: &[Event]) -> Vec<Outcome> {
    let publish_one = |event: &Event| {
        // An event without receivers counts as published.
        let _ = CHANNEL.send(Arc::new(event.clone()));
        Outcome::Published
    };
    events.iter().map(publish_one).collect()
}

pub(super) fn subscribe() -> broadcast::Receiver<Arc<Event>> {
    CHANNEL.subscribe()
}
