//! Events within one process: whoever listens gets them, and nothing is kept.

use std::sync::{Arc, LazyLock};

use tokio::sync::broadcast;

use super::Outcome;
use crate::event::Event;

/// Who is further behind than this has missed some.
const KEPT: usize = 1_024;

/// One for the process, as its services find each other without being told.
static HUB: LazyLock<broadcast::Sender<Arc<Event>>> = LazyLock::new(|| broadcast::Sender::new(KEPT));

pub(super) fn publish(events: &[Event]) -> Vec<Outcome> {
    let tell = |event: &Event| {
        // Nobody listening is as good as told.
        let _ = HUB.send(Arc::new(event.clone()));
        Outcome::Published
    };
    events.iter().map(tell).collect()
}

pub(super) fn listen() -> broadcast::Receiver<Arc<Event>> {
    HUB.subscribe()
}
