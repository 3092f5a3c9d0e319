//! etcd: replicas register, clients watch.

use std::process::Command;

use palisade_tests::{Client, eventually, process::Program, servers::Etcd};
use serde_json::{Value, json};

use crate::scene::{Scene, takes_traffic};

const PATH: &str = "palisade/products";

fn registered(etcd: &Etcd) -> impl Fn(&mut Command) {
    let url = etcd.url(PATH);
    move |command| {
        command.env("PALISADE_REGISTRATION__URL", &url).env("PALISADE_REGISTRATION__LEASE_SECONDS", "5");
    }
}

/// How many are registered.
async fn entries(etcd: &Etcd) -> usize {
    // "/" and "0", the next character, in base64: every key that begins with a slash.
    let range = Client::new(etcd.api(), None).post("/v3/kv/range", &json!({ "key": "Lw==", "range_end": "MA==" }));
    let range = range.attempt().await.unwrap().json();
    range["kvs"].as_array().map_or(0, Vec::len)
}

async fn etcd_seen_by(replica: &Program) -> Option<Value> {
    let report = Client::new(replica.url("products-admin"), None).get("/readyz").attempt().await.ok()?.json();
    report["dependencies"].as_array()?.iter().find(|dependency| dependency["name"] == "etcd").cloned()
}

#[tokio::test]
async fn replicas_join_leave_and_die_without_a_failed_read() {
    let etcd = Etcd::start();
    let scene = Scene::start(&etcd.url(PATH), registered(&etcd));
    let mut second = scene.join(registered(&etcd));
    let load = scene.load().await;
    scene.knows(2).await;
    load.wait_for_more_requests(500).await;

    let mut third = scene.join(registered(&etcd));
    let joined = takes_traffic(&third).await;
    load.wait_for_more_requests(500).await;

    second.ask_to_stop();
    let left = scene.knows(2).await;
    assert_eq!(second.exit_code(), Some(0));
    load.wait_for_more_requests(500).await;
    assert_eq!(entries(&etcd).await, 2);

    third.kill();
    let dead = scene.reaches_all().await;
    let gone = scene.knows(1).await;
    load.wait_for_more_requests(500).await;
    let answers = load.none_failed().await;
    eprintln!(
        "etcd: {answers} reads, 0 failed; joined after {joined:?}, left after {left:?}, dead: last failed attempt after {dead:?}, gone {gone:?} later"
    );
}

#[tokio::test]
async fn without_etcd_calls_go_on_and_what_it_forgot_is_told_again() {
    let mut etcd = Etcd::start();
    let scene = Scene::start(&etcd.url(PATH), registered(&etcd));
    let second = scene.join(registered(&etcd));
    let load = scene.load().await;
    scene.knows(2).await;

    etcd.kill();
    eventually(async || etcd_seen_by(&second).await.filter(|seen| seen["ok"] == json!(false))).await;
    load.wait_for_more_requests(1_000).await;
    scene.knows(2).await;

    etcd.restart_empty();
    eventually(async || (entries(&etcd).await == 2).then_some(())).await;
    eventually(async || etcd_seen_by(&second).await.filter(|seen| seen["ok"] == json!(true))).await;
    let third = scene.join(registered(&etcd));
    scene.knows(3).await;
    takes_traffic(&third).await;

    // It hangs: everybody's lease runs out and nobody hears of it.
    etcd.pause();
    eventually(async || etcd_seen_by(&second).await.filter(|seen| seen["ok"] == json!(false))).await;
    load.wait_for_more_requests(500).await;
    etcd.resume();
    eventually(async || etcd_seen_by(&second).await.filter(|seen| seen["ok"] == json!(true))).await;
    eventually(async || (entries(&etcd).await == 3).then_some(())).await;
    scene.knows(3).await;
    load.none_failed().await;
}

#[tokio::test]
async fn a_start_without_etcd_says_what_is_missing_and_goes_on_when_it_is_there() {
    let mut etcd = Etcd::start();
    etcd.kill();
    let scene = Scene::start(&etcd.url(PATH), registered(&etcd));
    let missing = eventually(async || scene.readiness().await.filter(|products| products["reason"] != "not asked yet")).await;
    assert_eq!(missing["reason"], "its address is not known: etcd has told none yet");
    let buyer = scene.shop.client("buyer", "products:read");
    buyer.get("/products").await.problem(503, "upstream_unavailable");
    etcd.restart();
    scene.shop.ready().await;
    buyer.get("/products").await.ok(200);
}

#[tokio::test]
async fn what_is_no_address_is_left_out() {
    let etcd = Etcd::start();
    let scene = Scene::start(&etcd.url(PATH), registered(&etcd));
    let load = scene.load().await;
    // /palisade/products/x, and "drop table" for an address.
    let put = json!({ "key": "L3BhbGlzYWRlL3Byb2R1Y3RzL3g=", "value": "ZHJvcCB0YWJsZQ==" });
    assert_eq!(Client::new(etcd.api(), None).post("/v3/kv/put", &put).attempt().await.unwrap().status, 200);
    let gateway = Client::new(scene.shop.admin_url("gateway"), None);
    eventually(async || {
        let metrics = gateway.get("/metrics").attempt().await.ok()?.text();
        let line = metrics.lines().find(|line| line.starts_with("palisade_discovery_entries_refused_total{target=\"products\"}"))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await;
    scene.knows(1).await;
    load.wait_for_more_requests(100).await;
    load.none_failed().await;
}
