//! How many streams are open, in all and of each caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    jitter,
    rejection::{Rejection, reasons},
    respond::Protocol,
};

/// Who may bring a stream to its end: what it tells of, its reader, its connection, its age.
pub(super) const REASONS: [&str; 4] = [DONE, READER, CONNECTION, AGE];
pub(super) const DONE: &str = "done";
pub(super) const READER: &str = "reader";
pub(super) const CONNECTION: &str = "connection";
pub(super) const AGE: &str = "age";

/// Why there is no place for another.
const ALL: &str = "streams";
const OF_CALLER: &str = "streams_of_caller";

/// When to come back, half as long more or less; a stream ends when its reader has gone, which may be at any time. So long that no client of
/// ours tries again within one call.
const COME_BACK: Duration = Duration::from_secs(20);

/// The streams of one port.
#[derive(Debug)]
pub(super) struct Caps {
    protocol: &'static str,
    most: usize,
    most_of_one: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    of: HashMap<Arc<str>, usize>,
}

/// The place of one stream, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    caps: Arc<Caps>,
    caller: Arc<str>,
}

impl Caps {
    pub(super) fn new(protocol: Protocol, most: usize, most_of_one: usize) -> Arc<Self> {
        let protocol = name(protocol);
        metrics::gauge!("palisade.streams.open", "protocol" => protocol).set(0);
        // A rate sees no event that made its series.
        for reason in REASONS {
            ended(protocol, reason).increment(0);
        }
        shed(ALL).increment(0);
        shed(OF_CALLER).increment(0);
        Arc::new(Self { protocol, most, most_of_one, open: Mutex::default() })
    }

    /// A place for a stream of `caller`.
    pub(super) fn enter(self: &Arc<Self>, caller: &str) -> Result<Place, Rejection> {
        let mut open = self.open.lock();
        let again = jitter::around(COME_BACK, 0.5, jitter::draw);
        if open.all >= self.most {
            shed(ALL).increment(1);
            return Err(Rejection::new(&reasons::OVERLOADED, "too many streams are open").with_retry_after(again));
        }
        let (caller, count) = match open.of.get_key_value(caller) {
            Some((caller, count)) => (caller.clone(), *count),
            None => (caller.into(), 0),
        };
        if count >= self.most_of_one {
            shed(OF_CALLER).increment(1);
            return Err(Rejection::new(&reasons::RATE_LIMITED, "too many streams of this caller are open").with_retry_after(again));
        }
        open.of.insert(caller.clone(), count + 1);
        open.all += 1;
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.protocol).increment(1);
        Ok(Place { caps: self.clone(), caller })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.caps.open.lock();
        open.all -= 1;
        if let Some(count) = open.of.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.of.remove(&self.caller);
            }
        }
        drop(open);
        metrics::gauge!("palisade.streams.open", "protocol" => self.caps.protocol).decrement(1);
    }
}

/// Streams that ended for this reason.
pub(super) fn ended(protocol: &'static str, reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.streams.ended", "protocol" => protocol, "reason" => reason)
}

fn shed(reason: &'static str) -> metrics::Counter {
    metrics::counter!("palisade.requests.shed", "reason" => reason)
}

/// The protocol as a label.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
    }
}
