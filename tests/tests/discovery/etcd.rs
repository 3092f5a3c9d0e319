//! etcd service discovery: replicas register, clients watch.

use std::process::Command;

use palisade_tests::{Client, eventually, process::Program, servers::Etcd};
use serde_json::{Value, json};

use crate::fixture::{Fixture, wait_for_traffic};

const PATH: &str = "palisade/products";

fn with_registration(etcd: &Etcd) -> impl Fn(&mut Command) {
    let url = etcd.url(PATH);
    move |command| {
        command.env("PALISADE_REGISTRATION__URL", &url).env("PALISADE_REGISTRATION__LEASE_TTL_S", "5");
    }
}

/// Returns the number of registered replicas.
async fn registered_replicas(etcd: &Etcd) -> usize {
    // Range from "/" to "0", the next character, in base64: every key that starts with a slash.
    let range = Client::new(etcd.api(), None).post("/v3/kv/range", &json!({ "key": "Lw==", "range_end": "MA==" }));
    let range = range.attempt().await.unwrap().json();
    range["kvs"].as_array().map_or(0, Vec::len)
}

async fn etcd_dependency(replica: &Program) -> Option<Value> {
    let report = Client::new(replica.url("products-admin"), None).get("/readyz").attempt().await.ok()?.json();
    report["dependencies"].as_array()?.iter().find(|dependency| dependency["name"] == "etcd").cloned()
}

#[tokio::test]
async fn etcd_membership_changes_cause_no_failed_read() {
    let etcd = Etcd::start();
    let fixture = Fixture::start(&etcd.url(PATH), with_registration(&etcd));
    let mut second = fixture.add_replica(with_registration(&etcd));
    let load = fixture.start_load().await;
    fixture.wait_for_endpoints(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = fixture.add_replica(with_registration(&etcd));
    let joined = wait_for_traffic(&third).await;
    load.wait_for_more_requests(500).await;

    second.terminate();
    let left = fixture.wait_for_endpoints(2).await;
    assert_eq!(second.exit_code(), Some(0));
    load.wait_for_more_requests(500).await;
    assert_eq!(registered_replicas(&etcd).await, 2);

    third.kill();
    let dead = fixture.wait_until_no_failures().await;
    let gone = fixture.wait_for_endpoints(1).await;
    load.wait_for_more_requests(500).await;
    let reads = load.stop_without_failures().await;
    eprintln!(
        "etcd: {reads} reads, 0 failed; joined after {joined:?}, left after {left:?}, dead: last failed attempt after {dead:?}, gone {gone:?} later"
    );
}

#[tokio::test]
async fn etcd_outage_keeps_endpoints_and_reregisters() {
    let mut etcd = Etcd::start();
    let fixture = Fixture::start(&etcd.url(PATH), with_registration(&etcd));
    let second = fixture.add_replica(with_registration(&etcd));
    let load = fixture.start_load().await;
    fixture.wait_for_endpoints(2).await;

    etcd.kill();
    eventually(async || etcd_dependency(&second).await.filter(|seen| seen["ok"] == json!(false))).await;
    load.wait_for_more_requests(1_000).await;
    fixture.wait_for_endpoints(2).await;

    etcd.restart_empty();
    eventually(async || (registered_replicas(&etcd).await == 2).then_some(())).await;
    eventually(async || etcd_dependency(&second).await.filter(|seen| seen["ok"] == json!(true))).await;
    let third = fixture.add_replica(with_registration(&etcd));
    fixture.wait_for_endpoints(3).await;
    wait_for_traffic(&third).await;

    // etcd hangs: all leases expire, and no watch event arrives.
    etcd.pause();
    eventually(async || etcd_dependency(&second).await.filter(|seen| seen["ok"] == json!(false))).await;
    load.wait_for_more_requests(500).await;
    etcd.resume();
    eventually(async || etcd_dependency(&second).await.filter(|seen| seen["ok"] == json!(true))).await;
    eventually(async || (registered_replicas(&etcd).await == 3).then_some(())).await;
    fixture.wait_for_endpoints(3).await;
    load.stop_without_failures().await;
}

#[tokio::test]
async fn start_without_etcd_is_not_ready_until_it_is_up() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let fixture = Fixture::start(&etcd.url(PATH), with_registration(&etcd));
    let missing = eventually(async || fixture.readiness().await.filter(|products| products["reason"] != "not probed yet")).await;
    assert_eq!(missing["reason"], "no endpoint known, waiting for etcd");
    let buyer = fixture.shop.client("buyer", "products:read");
    buyer.get("/products").await.problem(503, "upstream_unavailable");
    etcd.restart();
    fixture.shop.ready().await;
    buyer.get("/products").await.ok(200);
}

#[tokio::test]
async fn invalid_entries_are_ignored() {
    let etcd = Etcd::start();
    let fixture = Fixture::start(&etcd.url(PATH), with_registration(&etcd));
    let load = fixture.start_load().await;
    // Key /palisade/products/x with "drop table" as the address.
    let put = json!({ "key": "L3BhbGlzYWRlL3Byb2R1Y3RzL3g=", "value": "ZHJvcCB0YWJsZQ==" });
    assert_eq!(Client::new(etcd.api(), None).post("/v3/kv/put", &put).attempt().await.unwrap().status, 200);
    let gateway = Client::new(fixture.shop.admin_url("gateway"), None);
    eventually(async || {
        let metrics = gateway.get("/metrics").attempt().await.ok()?.text();
        let line = metrics.lines().find(|line| line.starts_with("palisade_discovery_invalid_entries_total{target=\"products\"}"))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
    fixture.wait_for_endpoints(1).await;
    load.wait_for_more_requests(100).await;
    load.stop_without_failures().await;
}
