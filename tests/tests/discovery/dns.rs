//! DNS service discovery: address records of one name, and SRV records.

use std::process::Command;

use palisade_tests::{
    process::Program,
    servers::{Dns, free_port},
};

use crate::fixture::{Fixture, served_reads, wait_for_traffic};

/// Address records share one port, so each replica has its own loopback address.
fn listening(host: u8, port: u16) -> impl Fn(&mut Command) {
    move |command| {
        command.env("PALISADE_LISTEN", format!("127.0.0.{host}:{port}"));
    }
}

fn addresses(hosts: &[u8]) -> Vec<String> {
    hosts.iter().map(|host| format!("host-record=products.test,127.0.0.{host}")).collect()
}

#[tokio::test]
async fn dns_address_changes_cause_no_failed_read() {
    let (mut dns, port) = (Dns::start(&addresses(&[2, 3])), free_port());
    let fixture = Fixture::start(&format!("dns://products.test:{port}?server={}", dns.address()), listening(2, port));
    let mut second = fixture.add_replica(listening(3, port));
    let load = fixture.start_load().await;
    fixture.wait_for_endpoints(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = fixture.add_replica(listening(4, port));
    dns.set(&addresses(&[2, 3, 4]));
    let joined = wait_for_traffic(&third).await;
    load.wait_for_more_requests(500).await;

    second.terminate();
    assert_eq!(second.exit_code(), Some(0));
    dns.set(&addresses(&[2, 4]));
    let left = fixture.wait_for_endpoints(2).await;
    load.wait_for_more_requests(500).await;

    third.kill();
    let dead = fixture.wait_until_no_failures().await;
    load.wait_for_more_requests(500).await;

    // The records disappear, then the server: the last known endpoints stay in use.
    dns.set(&[]);
    load.wait_for_more_requests(1_000).await;
    dns.kill();
    load.wait_for_more_requests(1_000).await;
    fixture.wait_for_endpoints(2).await;
    dns.set(&addresses(&[2]));
    let gone = fixture.wait_for_endpoints(1).await;
    load.wait_for_more_requests(100).await;
    let reads = load.stop_without_failures().await;
    eprintln!(
        "dns: {reads} reads, 0 failed; joined after {joined:?}, left after {left:?}, dead: last failed attempt after {dead:?}, gone {gone:?} after the record"
    );
}

#[tokio::test]
async fn srv_changes_cause_no_failed_read_and_use_priority() {
    let record = |replica: &Program, priority: u8| {
        let url = replica.url("products");
        format!("srv-host=_products._tcp.test,host.test,{},{priority}", url.rsplit(':').next().unwrap())
    };
    let with_host = |mut records: Vec<String>| {
        records.push("host-record=host.test,127.0.0.1".to_owned());
        records
    };
    let mut dns = Dns::start(&with_host(Vec::new()));
    let fixture = Fixture::start(&format!("srv://_products._tcp.test?server={}", dns.address()), |_| {});
    let first = fixture.shop.program("products");
    let mut second = fixture.add_replica(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&second, 1)]));
    let load = fixture.start_load().await;
    fixture.wait_for_endpoints(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = fixture.add_replica(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&second, 1), record(&third, 1)]));
    let joined = wait_for_traffic(&third).await;

    // The DNS records of stopped replicas remain.
    second.terminate();
    assert_eq!(second.exit_code(), Some(0));
    third.kill();
    let dead = fixture.wait_until_no_failures().await;
    load.wait_for_more_requests(500).await;

    let spare = fixture.add_replica(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&spare, 2)]));
    fixture.wait_for_endpoints(1).await;
    load.wait_for_more_requests(500).await;
    assert!(served_reads(&spare).await < 1.0, "the endpoint with the higher priority value must stay unused");
    dns.set(&with_host(vec![record(&spare, 2)]));
    wait_for_traffic(&spare).await;
    load.wait_for_more_requests(100).await;
    let reads = load.stop_without_failures().await;
    eprintln!("srv: {reads} reads, 0 failed; joined after {joined:?}, two dead: last failed attempt after {dead:?}");
}
