//! Connection limits and TCP keep-alive.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use palisade_middleware::{rate_limit::AddressConfig, respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fixture::{Server, TEST_TIMEOUT, statuses},
    frames::{END_STREAM, HEADERS, preface, request, until},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.is_ok() && stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0)
}

/// Waits until the server has closed the connection.
async fn is_closed(stream: &mut TcpStream) -> bool {
    timeout(TEST_TIMEOUT, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

fn metric(recorder: &PrometheusRecorder, series: &str) -> Option<f64> {
    palisade_middleware::metrics::collect();
    recorder.handle().render().lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[tokio::test]
async fn full_port_closes_longest_idle_connection() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let server = Server::start(Protocol::Http, Config { max_connections: 3, ..Config::default() });
    // Never sends a request, and so is idle since it was opened.
    let mut silent = server.connect().await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    assert!(is_answered(&mut first).await, "now the second one is idle for longer");
    assert_eq!(metric(&recorder, "palisade_connections_open{listener=\"public\"}"), Some(3.0));
    assert_eq!(metric(&recorder, "palisade_connections_limit{listener=\"public\"}"), Some(3.0));
    let (mut third, mut fourth) = (server.connect().await, server.connect().await);
    assert!(timeout(TEST_TIMEOUT, is_answered(&mut third)).await.unwrap());
    assert!(timeout(TEST_TIMEOUT, is_answered(&mut fourth)).await.unwrap());
    assert!(is_closed(&mut silent).await && is_closed(&mut second).await);
    assert!(is_answered(&mut first).await, "the connection used last stays open");
    assert_eq!(metric(&recorder, "palisade_connections_closed{reason=\"evicted\"}"), Some(2.0));
}

#[tokio::test]
async fn connection_waits_while_all_others_are_busy() {
    let server = Server::start(Protocol::Http, Config { max_connections: 2, ..Config::default() });
    let mut busy = [server.connect().await, server.connect().await];
    for stream in &mut busy {
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    }
    server.app.held(2).await;
    let mut third = server.connect().await;
    assert!(timeout(Duration::from_millis(200), is_answered(&mut third)).await.is_err(), "the connection limit is reached");
    server.app.release.add_permits(1);
    // Its request was sent before.
    timeout(TEST_TIMEOUT, third.readable()).await.expect("the first idle connection gave its slot").unwrap();
    assert!(third.read(&mut [0; 1024]).await.unwrap() > 0);
}

#[tokio::test]
async fn address_limit_closes_its_longest_idle_connection() {
    let config = Config { max_connections_per_address: 2, ..Config::default() };
    let server = Server::start(Protocol::Http, config.clone());
    let (mut first, mut second, mut third) = (server.connect().await, server.connect().await, server.connect().await);
    assert!(timeout(TEST_TIMEOUT, is_answered(&mut third)).await.unwrap());
    assert!(is_closed(&mut first).await);
    for stream in [&mut second, &mut third] {
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    }
    server.app.held(2).await;
    let mut refused = server.connect().await;
    assert!(!timeout(TEST_TIMEOUT, is_answered(&mut refused)).await.unwrap(), "no connection of the address is idle");
    drop((second, third));
    // The server notices the close slightly later.
    let reconnect = async { while !is_answered(&mut server.connect().await).await {} };
    timeout(TEST_TIMEOUT, reconnect).await.expect("the slots are released");
}

#[tokio::test]
async fn address_limit_applies_to_grpc_ports() {
    let services = Server::start(Protocol::Grpc, Config { max_connections_per_address: 2, ..Config::default() });
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = services.connect().await;
        stream.write_all(&[preface(&[]), request(1, END_STREAM, "POST", "/test.Test/Call")].concat()).await.unwrap();
        timeout(TEST_TIMEOUT, until(&mut stream, |frame| frame.kind == HEADERS)).await.unwrap().unwrap();
        open.push(stream);
    }
    for stream in &mut open[..3] {
        assert!(is_closed(stream).await);
    }
}

#[tokio::test]
async fn proxy_protocol_names_the_client_address() {
    let from = |proxies: &str| {
        let address_limit = AddressConfig { trusted_proxies: proxies.to_owned(), ..AddressConfig::default() };
        Server::start(Protocol::Http, Config { proxy_protocol: true, address_limit, ..Config::default() })
    };
    let get = b"GET /peer HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    let header = |command: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11][..], &length, body].concat()
    };
    let addresses = [192, 0, 2, 7, 203, 0, 113, 1, 0x04, 0xd2, 0x01, 0xbb];
    let trusting = from("127.0.0.0/8");
    let answer = trusting.exchange(&[&header(0x21, &addresses), &get[..]].concat()).await;
    assert!(answer.ends_with("192.0.2.7:1234"), "{answer}");
    let answer = trusting.exchange(&[&header(0x20, &[]), &get[..]].concat()).await;
    assert!(answer.contains("\r\n\r\n127.0.0.1:"), "a health check of the proxy: {answer}");
    assert_eq!(trusting.exchange(get).await, "", "a trusted proxy must send the header");
    let others = from("10.0.0.0/8");
    let answer = others.exchange(get).await;
    assert!(answer.contains("\r\n\r\n127.0.0.1:"), "{answer}");
    let answer = others.exchange(&[&header(0x21, &addresses), &get[..]].concat()).await;
    assert_eq!(statuses(&answer), [400], "only trusted proxies may name an address");
}

#[tokio::test]
async fn upgraded_connection_stays_open() {
    let config = Config { max_connections: 2, idle_timeout_ms: 100, header_read_timeout_ms: 100, ..Config::default() };
    let server = Server::start(Protocol::Http, config);
    let mut upgraded = server.connect().await;
    upgraded.write_all(b"GET /upgrade HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nfirst").await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"first") {
        assert_ne!(upgraded.read_buf(&mut received).await.unwrap(), 0, "{}", String::from_utf8_lossy(&received));
    }
    assert_eq!(statuses(&String::from_utf8_lossy(&received)), [101]);
    // The other slot serves many connections one after the other.
    for _ in 0..3 {
        assert!(timeout(TEST_TIMEOUT, is_answered(&mut server.connect().await)).await.unwrap());
    }
    let mut echoed = [0; 6];
    upgraded.write_all(b"second").await.unwrap();
    timeout(TEST_TIMEOUT, upgraded.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert_eq!(&echoed, b"second");
    server.shutdown.cancel();
    upgraded.write_all(b"third!").await.unwrap();
    timeout(TEST_TIMEOUT, upgraded.read_exact(&mut echoed)).await.unwrap().unwrap();
    assert!(!server.serving.is_finished(), "the drain waits for the connection");
    drop(upgraded);
    timeout(TEST_TIMEOUT, server.serving).await.expect("the server stops with its last connection").unwrap();
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
