//! How many streams are open, in all and of each caller.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    jitter,
    rejection::{Rejection, reasons},
    respond::Protocol,
};

/// When to come back; a stream ends when its reader has gone, which may be at any time.
const COME_BACK: Duration = Duration::from_secs(5);

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
        Arc::new(Self { protocol, most, most_of_one, open: Mutex::default() })
    }

    /// A place for a stream of `caller`.
    pub(super) fn enter(self: &Arc<Self>, caller: &str) -> Result<Place, Rejection> {
        let mut open = self.open.lock();
        let again = jitter::around(COME_BACK, 0.5, jitter::draw);
        if open.all >= self.most {
            metrics::counter!("palisade.requests.shed", "reason" => "streams").increment(1);
            return Err(Rejection::new(&reasons::OVERLOADED, "too many streams are open").with_retry_after(again));
        }
        let (caller, count) = match open.of.get_key_value(caller) {
            Some((caller, count)) => (caller.clone(), *count),
            None => (caller.into(), 0),
        };
        if count >= self.most_of_one {
            metrics::counter!("palisade.requests.shed", "reason" => "streams_of_caller").increment(1);
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

/// The protocol as a label.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Grpc => "grpc",
    }
}
