//! DNS: address records of one name, and services with their hosts.

use std::process::Command;

use palisade_tests::{
    process::Program,
    servers::{Dns, free_port},
};

use crate::scene::{Scene, takes_traffic};

/// A name has several addresses, but one port: each replica has a loopback address of its own.
fn listening(host: u8, port: u16) -> impl Fn(&mut Command) {
    move |command| {
        command.env("PALISADE_LISTEN", format!("127.0.0.{host}:{port}"));
    }
}

fn addresses(hosts: &[u8]) -> Vec<String> {
    hosts.iter().map(|host| format!("host-record=products.test,127.0.0.{host}")).collect()
}

#[tokio::test]
async fn address_records_come_and_go_without_a_failed_read() {
    let (mut dns, port) = (Dns::start(&addresses(&[2, 3])), free_port());
    let scene = Scene::start(&format!("dns://products.test:{port}?server={}", dns.address()), listening(2, port));
    let mut second = scene.join(listening(3, port));
    let load = scene.load().await;
    scene.knows(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = scene.join(listening(4, port));
    dns.set(&addresses(&[2, 3, 4]));
    let joined = takes_traffic(&third).await;
    load.wait_for_more_requests(500).await;

    second.ask_to_stop();
    assert_eq!(second.exit_code(), Some(0));
    dns.set(&addresses(&[2, 4]));
    let left = scene.knows(2).await;
    load.wait_for_more_requests(500).await;

    third.kill();
    let dead = scene.reaches_all().await;
    load.wait_for_more_requests(500).await;

    // The name is gone, then the server: what is known stays.
    dns.set(&[]);
    load.wait_for_more_requests(1_000).await;
    dns.kill();
    load.wait_for_more_requests(1_000).await;
    scene.knows(2).await;
    dns.set(&addresses(&[2]));
    let gone = scene.knows(1).await;
    load.wait_for_more_requests(100).await;
    let answers = load.none_failed().await;
    eprintln!(
        "dns: {answers} reads, 0 failed; joined after {joined:?}, left after {left:?}, dead: last failed attempt after {dead:?}, gone {gone:?} after the record"
    );
}

#[tokio::test]
async fn services_come_and_go_and_the_lower_priority_is_taken() {
    let record = |replica: &Program, priority: u8| {
        let url = replica.url("products");
        format!("srv-host=_products._tcp.test,host.test,{},{priority}", url.rsplit(':').next().unwrap())
    };
    let with_host = |mut records: Vec<String>| {
        records.push("host-record=host.test,127.0.0.1".to_owned());
        records
    };
    let mut dns = Dns::start(&with_host(Vec::new()));
    let scene = Scene::start(&format!("srv://_products._tcp.test?server={}", dns.address()), |_| {});
    let first = scene.shop.program("products");
    let mut second = scene.join(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&second, 1)]));
    let load = scene.load().await;
    scene.knows(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = scene.join(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&second, 1), record(&third, 1)]));
    let joined = takes_traffic(&third).await;

    // Nobody tells DNS.
    second.ask_to_stop();
    assert_eq!(second.exit_code(), Some(0));
    third.kill();
    let dead = scene.reaches_all().await;
    load.wait_for_more_requests(500).await;

    let spare = scene.join(|_| {});
    dns.set(&with_host(vec![record(first, 1), record(&spare, 2)]));
    scene.knows(1).await;
    load.wait_for_more_requests(500).await;
    assert!(crate::scene::reads(&spare).await < 1.0, "the spare is not needed");
    dns.set(&with_host(vec![record(&spare, 2)]));
    takes_traffic(&spare).await;
    load.wait_for_more_requests(100).await;
    let answers = load.none_failed().await;
    eprintln!("srv: {answers} reads, 0 failed; joined after {joined:?}, two dead: last failed attempt after {dead:?}");
}
