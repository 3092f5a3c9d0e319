//! How many connections there are, and what the system is told about each.

use std::time::Duration;

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::app::{TEST_TIMEOUT, Server};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.is_ok() && stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn connections_above_the_limit_wait_for_a_place() {
    let server = Server::start(Protocol::Http, Config { max_connections: 2, ..Config::default() });
    let (mut first, mut second, mut third) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    assert!(timeout(Duration::from_millis(200), is_answered(&mut third)).await.is_err(), "there is no place");
    drop(first);
    // It has asked already.
    timeout(TEST_TIMEOUT, third.readable()).await.expect("there is a place").unwrap();
    assert!(third.read(&mut [0; 1024]).await.unwrap() > 0);
}

#[tokio::test]
async fn one_address_cannot_take_all_places_of_an_http_port() {
    let config = Config { max_connections_per_address: 2, ..Config::default() };
    let server = Server::start(Protocol::Http, config.clone());
    let (mut first, mut second, mut third) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    assert!(!timeout(TEST_TIMEOUT, is_answered(&mut third)).await.unwrap(), "it is closed");
    drop((first, second));
    // The server learns of it a little later.
    let reconnect = async { while !is_answered(&mut server.connect().await).await {} };
    timeout(TEST_TIMEOUT, reconnect).await.expect("places come free");

    let services = Server::start(Protocol::Grpc, config);
    let mut open = Vec::new();
    for _ in 0..5 {
        let stream = services.connect().await;
        // The server's settings: it was accepted.
        timeout(TEST_TIMEOUT, stream.readable()).await.unwrap().unwrap();
        assert!(stream.try_read(&mut [0; 9]).unwrap() > 0);
        open.push(stream);
    }
}

#[tokio::test]
async fn the_system_looks_after_silent_peers() {
    let server = Server::start(Protocol::Http, Config::default());
    let mut stream = server.connect().await;
    assert!(is_answered(&mut stream).await);
    let hex = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (ours, theirs) = (hex(server.address), hex(stream.local_addr().unwrap()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[1].ends_with(&ours) && row[2].ends_with(&theirs)).expect("the connection");
    // `tr:tm->when` of proc_net_tcp: 02 is the keep-alive timer, the rest how many hundredths of a second it has still to run.
    let (timer, when) = row[5].split_once(':').unwrap();
    let left = u64::from_str_radix(when, 16).unwrap();
    assert!(timer == "02" && (1..=6_000).contains(&left), "{timer} {left}");
}
