//! Load over replicas that etcd tells: even over equal ones, little for a slow one.

use std::process::Command;

use palisade_tests::{load::Load, process::Program, servers::Etcd};

use crate::scene::{Scene, reads, slow_down};

/// So many that each replica always has some calls.
const READERS: usize = 18;

/// How many of the next reads each of them answers.
async fn shares(replicas: &[&Program], load: &Load, answers: usize) -> Vec<f64> {
    let mut counts = Vec::new();
    for replica in replicas {
        counts.push(reads(replica).await);
    }
    load.wait_for_more_requests(answers).await;
    for (replica, before) in replicas.iter().zip(&mut counts) {
        *before = reads(replica).await - *before;
    }
    let all: f64 = counts.iter().sum();
    counts.into_iter().map(|count| count / all).collect()
}

#[tokio::test]
async fn spreads_evenly_over_equal_replicas_and_away_from_a_slow_one() {
    let etcd = Etcd::start();
    let url = etcd.url("palisade/products");
    let registered = |command: &mut Command| {
        command.env("PALISADE_REGISTRATION__URL", &url);
    };
    let scene = Scene::start(&url, registered);
    let (second, third) = (scene.join(registered), scene.join(registered));
    let replicas = [scene.shop.program("products"), &second, &third];
    // Equal: on a busy machine the own work of three processes, of a millisecond or two, is anything but.
    for replica in replicas {
        slow_down(replica, 30).await;
    }
    let load = scene.load_of(READERS).await;
    scene.knows(3).await;
    load.wait_for_more_requests(500).await;
    let even = shares(&replicas, &load, 3_000).await;
    assert!(even.iter().all(|share| (share * 3.0 - 1.0).abs() <= 0.2), "{even:?}");

    // Far slower than anything that a busy machine does to the others.
    slow_down(&third, 1_000).await;
    load.wait_for_more_requests(200).await;
    let away = shares(&replicas, &load, 2_000).await;
    assert!(away[2] < 0.1, "{away:?}");
    let answers = load.none_failed().await;
    eprintln!("balance: {answers} reads, 0 failed; equal replicas {even:.3?}, the third takes a second {away:.3?}");
}
