//! Connection limits and TCP keep-alive.

use std::time::Duration;

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::fixture::{Server, TEST_TIMEOUT};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.is_ok() && stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let server = Server::start(Protocol::Http, Config { max_connections: 2, ..Config::default() });
    let (mut first, mut second, mut third) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    assert!(timeout(Duration::from_millis(200), is_answered(&mut third)).await.is_err(), "the connection limit is reached");
    drop(first);
    // Its request was sent before.
    timeout(TEST_TIMEOUT, third.readable()).await.expect("a permit is free").unwrap();
    assert!(third.read(&mut [0; 1024]).await.unwrap() > 0);
}

#[tokio::test]
async fn per_ip_limit_applies_to_http_ports_only() {
    let config = Config { max_connections_per_address: 2, ..Config::default() };
    let server = Server::start(Protocol::Http, config.clone());
    let (mut first, mut second, mut third) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    assert!(!timeout(TEST_TIMEOUT, is_answered(&mut third)).await.unwrap(), "the connection is closed");
    drop((first, second));
    // The server notices the close slightly later.
    let reconnect = async { while !is_answered(&mut server.connect().await).await {} };
    timeout(TEST_TIMEOUT, reconnect).await.expect("permits are released");

    let services = Server::start(Protocol::Grpc, config);
    let mut open = Vec::new();
    for _ in 0..5 {
        let stream = services.connect().await;
        // The server's SETTINGS frame shows that the connection was accepted.
        timeout(TEST_TIMEOUT, stream.readable()).await.unwrap().unwrap();
        assert!(stream.try_read(&mut [0; 9]).unwrap() > 0);
        open.push(stream);
    }
}

#[tokio::test]
async fn tcp_keep_alive_is_enabled() {
    let server = Server::start(Protocol::Http, Config::default());
    let mut stream = server.connect().await;
    assert!(is_answered(&mut stream).await);
    let hex = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (ours, theirs) = (hex(server.address), hex(stream.local_addr().unwrap()));
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.into_iter().find(|row| row[1].ends_with(&ours) && row[2].ends_with(&theirs)).expect("the connection is in the table");
    // `tr:tm->when` of proc_net_tcp: timer 02 is keep-alive, followed by the remaining hundredths
    // of a second.
    let (timer, when) = row[5].split_once(':').unwrap();
    let left = u64::from_str_radix(when, 16).unwrap();
    assert!(timer == "02" && (1..=6_000).contains(&left), "{timer} {left}");
}
