//! Separate connections for streams: long-lived streams could otherwise use up the concurrent
//! streams of the connection for unary calls.

use std::sync::Arc;

use parking_lot::Mutex;
use tonic::transport::Channel;

use palisade_resilience::counter::AtomicCounter;

/// Maximum streams per connection; servers of this crate allow at least as many
/// (`server.http2.max_streams`).
const MAX_STREAMS_PER_CONNECTION: u32 = 200;

/// Connections of one address for streams; grows and shrinks on demand.
pub(super) struct StreamConnectionPool {
    connect: Box<dyn Fn() -> Channel + Send + Sync>,
    connections: Mutex<Vec<StreamConnection>>,
}

struct StreamConnection {
    channel: Channel,
    streams: Arc<AtomicCounter>,
}

/// Slot of one stream on its connection, released on drop.
#[derive(Debug)]
pub(crate) struct StreamSlot(Arc<AtomicCounter>);

impl std::fmt::Debug for StreamConnectionPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("open", &self.connections.lock().len()).finish_non_exhaustive()
    }
}

impl StreamConnectionPool {
    /// Creates an empty pool. `connect` creates a lazy channel, which connects with its first
    /// stream.
    pub(super) fn new(connect: impl Fn() -> Channel + Send + Sync + 'static) -> Self {
        Self { connect: Box::new(connect), connections: Mutex::default() }
    }

    /// Acquires a connection for one more stream.
    pub(super) fn acquire(&self) -> (Channel, StreamSlot) {
        let mut connections = self.connections.lock();
        let found = connections.iter().position(|lane| lane.streams.get() < MAX_STREAMS_PER_CONNECTION);
        let index = found.unwrap_or_else(|| {
            connections.push(StreamConnection { channel: (self.connect)(), streams: Arc::new(AtomicCounter::new()) });
            connections.len() - 1
        });
        // Increments under the lock; a concurrent decrement is harmless.
        connections[index].streams.increment();
        let acquired = (connections[index].channel.clone(), StreamSlot(connections[index].streams.clone()));
        // Connections are filled in order, so that the last ones become idle and can be closed. One
        // idle connection stays for the next stream.
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
    async fn stream_pool_grows_when_full_and_shrinks_when_idle() {
        let pool = StreamConnectionPool::new(|| Channel::from_static("http://127.0.0.1:9").connect_lazy());
        let mut slots: Vec<_> = (0..=MAX_STREAMS_PER_CONNECTION).map(|_| pool.acquire().1).collect();
        assert_eq!(pool.connections.lock().len(), 2);
        drop(slots.pop());
        drop(slots.pop());
        slots.push(pool.acquire().1);
        assert_eq!(pool.connections.lock().len(), 1);
    }
}
