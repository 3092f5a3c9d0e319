use super::*;
use palisade_resilience::rate_limit::AddressConfig;
use tokio_test::assert_pending;

fn table(config: &Config) -> Arc<OpenConnections> {
    OpenConnections::new("test", Protocol::Http, config)
}

fn closing(connections: &[&Registered]) -> Vec<bool> {
    connections.iter().map(|connection| connection.state.is_evicted()).collect()
}

#[tokio::test(start_paused = true)]
async fn address_limit_evicts_its_own_longest_idle_connection() {
    let address_limit = AddressConfig { trusted_proxies: "10.0.0.0/8".to_owned(), ..AddressConfig::default() };
    let port = table(&Config { max_connections_per_address: 2, address_limit, ..Config::default() });
    let register = |address: &str| port.try_register(address.parse().unwrap());
    let other = register("192.0.2.9").unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    let (first, second) = (register("192.0.2.1").unwrap(), register("::ffff:192.0.2.1").unwrap());
    tokio::time::advance(MIN_IDLE).await;
    let request = first.state.start_request(true);
    let third = register("192.0.2.1").unwrap();
    assert_eq!(closing(&[&other, &first, &second, &third]), [false, false, true, false]);
    let busy = third.state.start_request(true);
    assert!(register("192.0.2.1").is_none(), "no connection of the address is idle");
    drop((request, busy));
    let proxied: Vec<_> = (0..3).map(|_| register("10.0.0.1").unwrap()).collect();
    drop((other, first, second, third, proxied));
    assert!(port.table.lock().addresses.is_empty());
}

/// A client with more connections than its address may have keeps those that it uses: the rest
/// wait, instead of taking their places in turn.
#[tokio::test(start_paused = true)]
async fn connections_in_use_are_not_evicted_by_their_address() {
    let port = table(&Config { max_connections_per_address: 1, max_connections: 4, ..Config::default() });
    let peer = IpAddr::from([192, 0, 2, 1]);
    let used = port.register(peer).await.unwrap();
    let use_it = async {
        for _ in 0..3 {
            drop(used.state.start_request(true));
            tokio::time::sleep(MIN_IDLE / 2).await;
        }
    };
    let started = Instant::now();
    let newcomer = async { (port.register(peer).await, started.elapsed()) };
    let ((newcomer, waited), ()) = tokio::join!(newcomer, use_it);
    assert!(newcomer.is_none() && waited == MIN_IDLE && !used.state.is_evicted(), "{waited:?}");
    tokio::time::advance(MIN_IDLE).await;
    let newcomer = port.register(peer).await.unwrap();
    assert!(used.state.is_evicted(), "no longer used");
    drop(newcomer);
    // Places for waiting connections are limited by the port.
    let used = port.register(peer).await.unwrap();
    let slots = [port.acquire_slot().await, port.acquire_slot().await];
    let started = Instant::now();
    assert!(port.register(peer).await.is_none() && started.elapsed().is_zero());
    drop((slots, used));
}

#[tokio::test(start_paused = true)]
async fn full_port_evicts_longest_idle_connection() {
    let port = table(&Config { max_connections: 3, ..Config::default() });
    let mut open = Vec::new();
    for host in 1..=3_u8 {
        let slot = port.acquire_slot().await;
        open.push((port.try_register([192, 0, 2, host].into()).unwrap(), slot));
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    // The oldest connection is busy, and the second was used last.
    let busy = open[0].0.state.start_request(true);
    drop(open[1].0.state.start_request(true));
    let mut next = tokio_test::task::spawn(port.acquire_slot());
    assert_pending!(next.poll());
    assert_eq!(closing(&[&open[0].0, &open[1].0, &open[2].0]), [false, false, true]);
    drop(open.remove(2));
    let slot = next.await;
    // Without an idle connection the next one waits until one becomes idle.
    let more = open[1].0.state.start_request(true);
    let newcomer = port.try_register([192, 0, 2, 4].into()).unwrap();
    let newest = newcomer.state.start_request(true);
    let mut next = tokio_test::task::spawn(port.acquire_slot());
    assert_pending!(next.poll());
    assert_eq!(closing(&[&open[0].0, &open[1].0, &newcomer]), [false; 3]);
    drop(busy);
    assert_pending!(next.poll());
    assert_eq!(closing(&[&open[0].0, &open[1].0, &newcomer]), [true, false, false]);
    drop(open.remove(0));
    drop((next.await, slot, more, newest));
}

#[tokio::test(start_paused = true)]
async fn full_port_of_busy_connections_evicts_one_of_the_largest_address() {
    const LIMIT: usize = 200;
    let address_limit = AddressConfig { trusted_proxies: "10.0.0.0/8".to_owned(), ..AddressConfig::default() };
    let port = table(&Config { max_connections: LIMIT, address_limit, ..Config::default() });
    let mut open = Vec::new();
    let mut enter = async |address: [u8; 4], connections: usize| {
        for _ in 0..connections {
            let (slot, connection) = (port.acquire_slot().await, port.try_register(address.into()).unwrap());
            let request = connection.state.start_request(true);
            open.push((address, request, connection, slot));
        }
    };
    enter([10, 0, 0, 1], 90).await;
    enter([192, 0, 2, 1], LARGE_ADDRESS + 1).await;
    enter([192, 0, 2, 2], LIMIT - 90 - LARGE_ADDRESS - 1).await;
    let evicted = |open: &[([u8; 4], _, Registered, _)]| -> Vec<[u8; 4]> {
        open.iter().filter(|(_, _, connection, _)| connection.state.is_evicted()).map(|(address, ..)| *address).collect()
    };
    let mut next = tokio_test::task::spawn(port.acquire_slot());
    assert_pending!(next.poll());
    assert_eq!(evicted(&open), [[192, 0, 2, 1]]);
    open.retain(|(_, _, connection, _)| !connection.state.is_evicted());
    let slot = next.await;
    // No address has very many connections any more.
    let newcomer = port.try_register([192, 0, 2, 3].into()).unwrap();
    let request = newcomer.state.start_request(true);
    let mut next = tokio_test::task::spawn(port.acquire_slot());
    assert_pending!(next.poll());
    assert!(evicted(&open).is_empty());
    drop((request, newcomer, slot));
    drop(next.await);
}
