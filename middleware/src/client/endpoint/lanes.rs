//! Streams have connections of their own: on one that they filled up no call would find room.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::count::Count;

/// Streams on one connection; a server of ours lets one have as many at least (`server.http2.max_streams`).
const STREAMS: u32 = 200;

/// The connections of one address that carry streams, as many as they need.
pub(super) struct Lanes {
    connect: Box<dyn Fn() -> Channel + Send + Sync>,
    open: Mutex<Vec<Lane>>,
}

struct Lane {
    channel: Channel,
    streams: Arc<Count>,
}

/// The place of one stream on its connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<Count>);

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("open", &self.open.lock().len()).finish_non_exhaustive()
    }
}

impl Lanes {
    /// None yet; `connect` makes one, and the connection with the first stream.
    pub(super) fn new(connect: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        Self { connect: Box::new(connect), open: Mutex::default() }
    }

    /// The connection for one more stream.
    pub(super) fn enter(&self) -> (Channel, Place) {
        let mut open = self.open.lock();
        let found = open.iter().position(|lane| lane.streams.get() < STREAMS);
        let index = found.unwrap_or_else(|| {
            open.push(Lane { channel: (self.connect)(), streams: Arc::new(Count::new()) });
            open.len() - 1
        });
        // Under the lock; that one may be left meanwhile does no harm.
        open[index].streams.enter();
        let entered = (open[index].channel.clone(), Place(open[index].streams.clone()));
        // The first ones fill up first, so that the last ones can go; one stays for whoever comes next.
        while open.len() > index + 1 && open.last().is_some_and(|lane| lane.streams.get() == 0) {
            open.pop();
        }
        entered
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_takes_so_many_streams_and_one_that_has_none_is_let_go() {
        let lanes = Lanes::new(|| Channel::from_static("http://127.0.0.1:9").connect_lazy());
        let mut places: Vec<_> = (0..=STREAMS).map(|_| lanes.enter().1).collect();
        assert_eq!(lanes.open.lock().len(), 2);
        drop(places.pop());
        drop(places.pop());
        places.push(lanes.enter().1);
        assert_eq!(lanes.open.lock().len(), 1);
    }
}
