//! Static list: a fixed set of replicas that stop, crash and restart.

use std::process::Command;

use palisade_tests::servers::free_port;

use crate::fixture::{Fixture, wait_for_traffic};

#[tokio::test]
async fn static_list_restarts_cause_no_failed_read() {
    let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let url = addresses.clone().map(|address| format!("http://{address}")).join(",");
    let listening = |index: usize| {
        let address = addresses[index].clone();
        move |command: &mut Command| {
            command.env("PALISADE_LISTEN", &address);
        }
    };
    let fixture = Fixture::start(&url, listening(0));
    let (mut second, mut third) = (fixture.add_replica(listening(1)), fixture.add_replica(listening(2)));
    let load = fixture.start_load().await;
    load.wait_for_more_requests(500).await;

    second.terminate();
    assert_eq!(second.exit_code(), Some(0));
    load.wait_for_more_requests(500).await;
    third.kill();
    let dead = fixture.wait_until_no_failures().await;
    load.wait_for_more_requests(500).await;
    second.restart();
    third.restart();
    let back = wait_for_traffic(&second).await.max(wait_for_traffic(&third).await);
    load.wait_for_more_requests(500).await;
    let reads = load.stop_without_failures().await;
    eprintln!("list: {reads} reads, 0 failed; dead: last failed attempt after {dead:?}, back after {back:?}");
}
