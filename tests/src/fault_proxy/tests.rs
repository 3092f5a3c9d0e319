use tokio::time::timeout;

use super::*;

/// Starts an echo server behind a proxy. Its tasks end with the returned set.
async fn echo() -> (FaultProxy, JoinSet<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = FaultProxy::connect_to(listener.local_addr().unwrap()).await;
    let mut server = JoinSet::new();
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
    });
    (proxy, server)
}

async fn connect(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn round_trip(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    read(stream, text.len()).await
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut buffer = vec![0; length];
    stream.read_exact(&mut buffer).await.unwrap();
    String::from_utf8(buffer).unwrap()
}

#[tokio::test]
async fn pass_mode_forwards_bytes_and_close() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(round_trip(&mut stream, "a").await, "a");
    assert_eq!(round_trip(&mut stream, &"b".repeat(1_000_000)).await.len(), 1_000_000);
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn latency_mode_delays_both_directions_once() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Latency(Duration::from_millis(100)));
    let start = Instant::now();
    for part in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        // Lets the proxy read each part separately.
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut stream, 10).await, "abcdefghij");
    let took = start.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(1)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn blackhole_mode_delivers_nothing_until_it_ends() {
    let (proxy, _server) = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(round_trip(&mut old, "a").await, "a");
    proxy.set(Mode::Blackhole);
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        assert!(timeout(Duration::from_millis(100), round_trip(stream, "b")).await.is_err());
    }
    proxy.set(Mode::Pass);
    for stream in [&mut old, &mut new] {
        assert_eq!(read(stream, 1).await, "b");
    }
}

#[tokio::test]
async fn refuse_mode_resets_connections_until_it_ends() {
    let (proxy, _server) = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(round_trip(&mut old, "a").await, "a");
    proxy.set(Mode::Refuse);
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // A new connection may be reset before or after `connect` returns.
    if let Ok(mut new) = TcpStream::connect(proxy.address()).await {
        assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    proxy.set(Mode::Pass);
    assert_eq!(round_trip(&mut connect(&proxy).await, "b").await, "b");
}

#[tokio::test]
async fn slow_mode_limits_bandwidth_until_it_ends() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Slow(1_000));
    let start = Instant::now();
    assert_eq!(round_trip(&mut stream, &"a".repeat(300)).await.len(), 300);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    stream.write_all("b".repeat(100_000).as_bytes()).await.unwrap();
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut stream, 100_000).await.len(), 100_000);
}
