//! A list in the configuration: nobody joins or leaves, but replicas stop, die and come back.

use std::process::Command;

use palisade_tests::servers::free_port;

use crate::scene::{Scene, takes_traffic};

#[tokio::test]
async fn replicas_of_a_list_stop_die_and_come_back_without_a_failed_read() {
    let addresses = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    let url = addresses.clone().map(|address| format!("http://{address}")).join(",");
    let listening = |index: usize| {
        let address = addresses[index].clone();
        move |command: &mut Command| {
            command.env("PALISADE_LISTEN", &address);
        }
    };
    let scene = Scene::start(&url, listening(0));
    let (mut second, mut third) = (scene.join(listening(1)), scene.join(listening(2)));
    let load = scene.load().await;
    load.wait_for_more_requests(500).await;

    second.ask_to_stop();
    assert_eq!(second.exit_code(), Some(0));
    load.wait_for_more_requests(500).await;
    third.kill();
    let dead = scene.reaches_all().await;
    load.wait_for_more_requests(500).await;
    second.restart();
    third.restart();
    let back = takes_traffic(&second).await.max(takes_traffic(&third).await);
    load.wait_for_more_requests(500).await;
    let answers = load.none_failed().await;
    eprintln!("list: {answers} reads, 0 failed; dead: last failed attempt after {dead:?}, back after {back:?}");
}
