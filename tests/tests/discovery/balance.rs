//! Load balancing over replicas discovered through etcd: an even share for equal replicas, little
//! for a slow one.

use std::process::Command;

use palisade_tests::{load::Load, process::Program, servers::Etcd};

use crate::fixture::{Fixture, served_reads, slow_down};

/// Enough readers that each replica always has calls in flight.
const READERS: usize = 18;

/// Returns each replica's share of the next reads.
async fn shares(replicas: &[&Program], load: &Load, answers: usize) -> Vec<f64> {
    let mut counts = Vec::new();
    for replica in replicas {
        counts.push(served_reads(replica).await);
    }
    load.wait_for_more_requests(answers).await;
    for (replica, before) in replicas.iter().zip(&mut counts) {
        *before = served_reads(replica).await - *before;
    }
    let all: f64 = counts.iter().sum();
    counts.into_iter().map(|count| count / all).collect()
}

#[tokio::test]
async fn balancer_spreads_evenly_and_avoids_slow_replica() {
    let etcd = Etcd::start();
    let url = etcd.url("palisade/products");
    let registered = |command: &mut Command| {
        command.env("PALISADE_REGISTRATION__URL", &url);
    };
    let fixture = Fixture::start(&url, registered);
    let (second, third) = (fixture.add_replica(registered), fixture.add_replica(registered));
    let replicas = [fixture.shop.program("products"), &second, &third];
    // Adds equal latency, because on a busy machine the processing time of one or two milliseconds
    // varies widely.
    for replica in replicas {
        slow_down(replica, 30).await;
    }
    let load = fixture.start_load_with(READERS).await;
    fixture.wait_for_endpoints(3).await;
    load.wait_for_more_requests(500).await;
    let even = shares(&replicas, &load, 3_000).await;
    assert!(even.iter().all(|share| (share * 3.0 - 1.0).abs() <= 0.2), "{even:?}");

    // Much slower than the noise of a busy machine.
    slow_down(&third, 1_000).await;
    load.wait_for_more_requests(200).await;
    let away = shares(&replicas, &load, 2_000).await;
    assert!(away[2] < 0.1, "{away:?}");
    let reads = load.stop_without_failures().await;
    eprintln!("balance: {reads} reads, 0 failed; shares of equal replicas {even:.3?}, with a slow third {away:.3?}");
}
