//! Response bytes that wait for their readers, bounded per connection, per address and per port.
//!
//! A peer that does not read keeps whole responses in memory. Above half of a bound, a connection
//! without progress for a second is closed; above the bound, sooner. A connection that is read is
//! never closed: many large responses at once are normal between services.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

/// Maximum bytes; 0 is no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) port: usize,
    pub(super) address: usize,
    pub(super) connection: usize,
}

/// Total of a port or an address.
#[derive(Debug, Clone, Default)]
pub(super) struct Total(Arc<AtomicUsize>);

impl Total {
    pub(super) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }

    fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Load of the bounds after bytes were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    /// Below half of each bound.
    Low,
    /// Above half of a bound.
    High,
    /// Above a bound.
    Exceeded,
}

/// Bytes that wait on one connection.
#[derive(Debug)]
pub(super) struct WaitingBytes {
    bounds: Bounds,
    port: Total,
    /// `None` for an exempt address.
    address: Option<Total>,
    connection: AtomicUsize,
    /// Number of responses with waiting bytes.
    responses: AtomicUsize,
    /// Bytes handed on since the connection was opened.
    progress: AtomicU64,
}

impl WaitingBytes {
    pub(super) fn new(bounds: Bounds, port: Total, address: Option<Total>) -> Self {
        Self { bounds, port, address, connection: AtomicUsize::new(0), responses: AtomicUsize::new(0), progress: AtomicU64::new(0) }
    }

    /// Returns the waiting bytes of the connection.
    pub(super) fn get(&self) -> usize {
        self.connection.load(Ordering::Relaxed)
    }

    /// Returns the bytes handed on so far.
    pub(super) fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// Counts one more response with waiting bytes.
    pub(super) fn start_response(&self) {
        self.responses.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_response(&self) {
        self.responses.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: usize) -> Pressure {
        self.connection.fetch_add(bytes, Ordering::Relaxed);
        self.port.add(bytes);
        if let Some(address) = &self.address {
            address.add(bytes);
        }
        self.pressure()
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.connection.fetch_sub(bytes, Ordering::Relaxed);
        self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
        self.port.subtract(bytes);
        if let Some(address) = &self.address {
            address.subtract(bytes);
        }
    }

    /// Compares the totals with their bounds. A single response may exceed the bound of the
    /// connection, or it could never be sent.
    pub(super) fn pressure(&self) -> Pressure {
        let connection = if self.responses.load(Ordering::Relaxed) > 1 { self.get() } else { 0 };
        let totals = [
            (self.port.get(), self.bounds.port),
            (self.address.as_ref().map_or(0, Total::get), self.bounds.address),
            (connection, self.bounds.connection),
        ];
        let pressures = totals.into_iter().filter(|(_, bound)| *bound > 0).map(|(total, bound)| match total {
            total if total > bound => Pressure::Exceeded,
            total if total > bound / 2 => Pressure::High,
            _ => Pressure::Low,
        });
        pressures.max().unwrap_or(Pressure::Low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_its_own_total() {
        let bounds = Bounds { port: 1_000, address: 100, connection: 40 };
        let (port, address) = (Total::default(), Total::default());
        let open = |address: Option<&Total>| {
            let waiting = WaitingBytes::new(bounds, port.clone(), address.cloned());
            waiting.start_response();
            waiting
        };
        let (first, second, exempt) = (open(Some(&address)), open(Some(&address)), open(None));
        assert_eq!(first.add(50), Pressure::Low, "a single response may exceed the bound of its connection");
        first.start_response();
        assert_eq!(first.pressure(), Pressure::Exceeded);
        assert_eq!(second.add(10), Pressure::High);
        assert_eq!(second.add(41), Pressure::Exceeded);
        assert_eq!(exempt.add(300), Pressure::Low);
        assert_eq!(exempt.add(200), Pressure::High);
        assert_eq!((port.get(), address.get()), (601, 101));
        first.subtract(50);
        second.subtract(51);
        exempt.subtract(500);
        assert_eq!((port.get(), address.get(), first.progress()), (0, 0, 50));
        assert_eq!(first.pressure(), Pressure::Low);
    }

    #[test]
    fn zero_is_no_bound() {
        let waiting = WaitingBytes::new(Bounds { port: 0, address: 0, connection: 0 }, Total::default(), Some(Total::default()));
        waiting.start_response();
        waiting.start_response();
        assert_eq!(waiting.add(usize::MAX / 2), Pressure::Low);
    }
}
