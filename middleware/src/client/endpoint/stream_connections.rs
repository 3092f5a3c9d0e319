//! Streams have connections of their own: on one that they filled up no call would find room.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::counter::AtomicCounter;

/// Streams on one connection; a server of ours lets one have as many at least (`server.http2.max_streams`).
const MAX_STREAMS_PER_CONNECTION: u32 = 200;

/// The connections of one address that carry streams, as many as they need.
pub(super) struct StreamConnectionPool {
    connect: Box<dyn Fn() -> Channel + Send + Sync>,
    connections: Mutex<Vec<StreamConnection>>,
}

struct StreamConnection {
    channel: Channel,
    streams: Arc<AtomicCounter>,
}

/// The place of one stream on its connection, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<AtomicCounter>);

impl std::fmt::Debug for StreamConnectionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("open", &self.connections.lock().len()).finish_non_exhaustive()
    }
}

impl StreamConnectionPool {
    /// None yet; `connect` makes one, and the connection with the first stream.
    pub(super) fn new(connect: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        Self { connect: Box::new(connect), connections: Mutex::default() }
    }

    /// The connection for one more stream.
    pub(super) fn acquire(&self) -> (Channel, StreamSlot) {
        let mut connections = self.connections.lock();
        let found = connections.iter().position(|lane| lane.streams.get() < MAX_STREAMS_PER_CONNECTION);
        let index = found.unwrap_or_else(|| {
            connections.push(StreamConnection { channel: (self.connect)(), streams: Arc::new(AtomicCounter::new()) });
            connections.len() - 1
        });
        // Under the lock; that one may be left meanwhile does no harm.
        connections[index].streams.increment();
        let acquired = (connections[index].channel.clone(), StreamSlot(connections[index].streams.clone()));
        // The first ones fill up first, so that the last ones can go; one stays for whoever comes next.
        while connections.len() > index + 1 && connections.last().is_some_and(|lane| lane.streams.get() == 0) {
            connections.pop();
        }
        acquired
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.decrement();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_takes_so_many_streams_and_one_that_has_none_is_let_go() {
        let pool = StreamConnectionPool::new(|| Channel::from_static("http://127.0.0.1:9").connect_lazy());
        let mut slots: Vec<_> = (0..=MAX_STREAMS_PER_CONNECTION).map(|_| pool.acquire().1).collect();
        assert_eq!(pool.connections.lock().len(), 2);
        drop(slots.pop());
        drop(slots.pop());
        slots.push(pool.acquire().1);
        assert_eq!(pool.connections.lock().len(), 1);
    }
}
