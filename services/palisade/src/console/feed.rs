//! Feed of the page as server-sent events: `snapshot` once a second, and `traces` after changes.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    response::sse::{Event, Sse},
};
use futures_util::{Stream, future::join_all, stream};
use palisade_middleware::{
    rejection::{Rejection, reasons},
    telemetry::recent::TraceSummary,
};
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{Console, snapshot::Snapshot};

const INTERVAL: Duration = Duration::from_secs(1);
/// Traces of a feed without a failure and in time, and those with one or slow.
const MAX_LISTED: [usize; 2] = [50, 50];

/// One open page.
struct Reader {
    console: Arc<Console>,
    interval: Interval,
    /// Version of the traces sent last.
    sent: Option<u64>,
    /// Traces to send before the next tick.
    pending: Option<Event>,
    _permit: OwnedSemaphorePermit,
}

/// `GET /console/events`.
pub(super) async fn events(
    State(console): State<Arc<Console>>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Rejection> {
    let permit = console.readers.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Rejection::new(&reasons::OVERLOADED, "too many consoles are open").with_retry_after(INTERVAL))?;
    let mut interval = interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let reader = Reader { console, interval, sent: None, pending: None, _permit: permit };
    Ok(Sse::new(stream::unfold(reader, async |mut reader| Some((Ok(reader.next().await), reader)))))
}

impl Reader {
    async fn next(&mut self) -> Event {
        if let Some(traces) = self.pending.take() {
            return traces;
        }
        self.interval.tick().await;
        let version = self.console.traces.version();
        if self.sent.replace(version) != Some(version) {
            self.pending = Some(event("traces", &selected(self.console.traces.list())));
        }
        let Console { telemetry, ports, clock, services, .. } = &*self.console;
        let services = join_all(services.iter().map(|service| Snapshot::read(telemetry, ports, service))).await;
        let at_ms = i64::try_from(clock.now().unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
        event("snapshot", &json!({ "atMs": at_ms, "services": services }))
    }
}

/// The newest traces of either class.
fn selected(traces: Vec<TraceSummary>) -> Vec<TraceSummary> {
    let mut left = MAX_LISTED;
    let fits = |trace: &TraceSummary| {
        let left = &mut left[usize::from(trace.notable)];
        let fits = *left > 0;
        *left = left.saturating_sub(1);
        fits
    };
    traces.into_iter().filter(fits).collect()
}

fn event(name: &str, data: &impl serde::Serialize) -> Event {
    // Fails only for maps with keys that are no text.
    Event::default().event(name).json_data(data).unwrap_or_default()
}
