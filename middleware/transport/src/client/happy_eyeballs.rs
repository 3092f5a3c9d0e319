//! Happy Eyeballs (RFC 8305): connects to the first of several addresses of a host that accepts.
//!
//! A host may have an address that drops packets: IPv6 without a route, or a replica that died. The
//! next address is tried after a short delay, while earlier attempts go on.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// Delay before the next address is tried (RFC 8305 §5, recommended value).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Minimum delay (RFC 8305 §5).
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

/// Connects to one of `addresses` with `connect`, and returns the first connection. The delay
/// between attempts is shortened if all addresses would otherwise not be tried within `timeout`,
/// which the caller enforces. The error is that of the last failed attempt.
pub(super) async fn connect_first<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    timeout: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let addresses = interleave_families(addresses);
    let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    let delay = (timeout / count.saturating_add(1)).clamp(MIN_ATTEMPT_DELAY, ATTEMPT_DELAY);
    let mut untried = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match untried.next() {
            Some(address) => attempts.push(connect(address)),
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(connection) => return Ok(connection),
                // The next address is tried at once.
                Err(error) => last_error = error,
            },
            () = sleep(delay), if untried.len() > 0 => {}
        }
    }
}

/// Alternates between the address families, beginning with that of the first address, which the
/// resolver prefers (RFC 8305 §4). Keeps the order within a family.
fn interleave_families(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut interleaved = Vec::with_capacity(first.len() + second.len());
    while first.len() + second.len() > 0 {
        interleaved.extend(first.next());
        interleaved.extend(second.next());
    }
    interleaved
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use tokio::time::Instant;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// Behaviour of an address by its port: 1 drops packets, 2 refuses, others accept after as many
    /// milliseconds.
    async fn connect(address: SocketAddr) -> io::Result<SocketAddr> {
        match address.port() {
            1 => pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            millis => {
                sleep(Duration::from_millis(millis.into())).await;
                Ok(address)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_drops_packets_delays_but_never_fails() {
        let rows: [(&[&str], &str, u64); 6] = [
            (&["192.0.2.1:1", "192.0.2.2:10"], "192.0.2.2:10", 260),
            (&["[2001:db8::1]:1", "192.0.2.2:10"], "192.0.2.2:10", 260),
            (&["192.0.2.1:2", "192.0.2.2:10"], "192.0.2.2:10", 10),
            (&["192.0.2.1:300", "192.0.2.2:200"], "192.0.2.1:300", 300),
            // A slow address wins if later ones fail.
            (&["192.0.2.1:400", "192.0.2.2:2", "192.0.2.3:1"], "192.0.2.1:400", 400),
            // All of many addresses are tried within the timeout.
            (&["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1", "192.0.2.6:20"], "192.0.2.6:20", 735),
        ];
        for (hosts, expected, millis) in rows {
            let started = Instant::now();
            let connected = tokio::time::timeout(TIMEOUT, connect_first(addresses(hosts), TIMEOUT, connect)).await;
            assert_eq!(connected.expect("connected in time").unwrap(), expected.parse().unwrap(), "{hosts:?}");
            assert!(started.elapsed().as_millis().abs_diff(millis.into()) <= 5, "{hosts:?}: {:?}", started.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn last_error_is_returned_when_all_addresses_fail() {
        let error = connect_first(addresses(&["192.0.2.1:2", "192.0.2.2:2"]), TIMEOUT, connect).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = connect_first([], TIMEOUT, connect).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn families_alternate_from_the_preferred_one() {
        let hosts = addresses(&["[2001:db8::1]:2", "[2001:db8::2]:2", "[2001:db8::3]:2", "192.0.2.1:2", "192.0.2.2:2"]);
        let tried = RefCell::new(Vec::new());
        let attempt = |address| {
            tried.borrow_mut().push(address);
            connect(address)
        };
        connect_first(hosts.clone(), TIMEOUT, attempt).await.unwrap_err();
        assert_eq!(*tried.borrow(), [0, 3, 1, 4, 2].map(|index| hosts[index]));
    }
}
