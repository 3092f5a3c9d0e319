use tokio::time::timeout;

use super::*;

/// A server that sends back whatever it gets, and a proxy before it. The tasks end with the set.
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

async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    read(stream, text.len()).await
}

async fn read(stream: &mut TcpStream, length: usize) -> String {
    let mut told = vec![0; length];
    stream.read_exact(&mut told).await.unwrap();
    String::from_utf8(told).unwrap()
}

#[tokio::test]
async fn passes_bytes_and_ends_on() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(ask(&mut stream, "a").await, "a");
    assert_eq!(ask(&mut stream, &"b".repeat(1_000_000)).await.len(), 1_000_000);
    stream.shutdown().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn latency_is_added_in_either_direction_and_not_per_chunk() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Latency(Duration::from_millis(100)));
    let start = Instant::now();
    for part in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        // Lets the proxy take each by itself.
        tokio::task::yield_now().await;
    }
    assert_eq!(read(&mut stream, 10).await, "abcdefghij");
    let took = start.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(1)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_black_hole_is_silent_for_old_and_new_connections_until_it_is_over() {
    let (proxy, _server) = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(ask(&mut old, "a").await, "a");
    proxy.set(Mode::Blackhole);
    let mut new = connect(&proxy).await;
    for stream in [&mut old, &mut new] {
        assert!(timeout(Duration::from_millis(100), ask(stream, "b")).await.is_err());
    }
    proxy.set(Mode::Pass);
    for stream in [&mut old, &mut new] {
        assert_eq!(read(stream, 1).await, "b");
    }
}

#[tokio::test]
async fn refused_connections_are_reset_and_later_ones_are_well() {
    let (proxy, _server) = echo().await;
    let mut old = connect(&proxy).await;
    assert_eq!(ask(&mut old, "a").await, "a");
    proxy.set(Mode::Refuse);
    assert_eq!(old.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // The reset of a new one may come before or after the kernel says that it is connected.
    if let Ok(mut new) = TcpStream::connect(proxy.address()).await {
        assert_eq!(new.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
    proxy.set(Mode::Pass);
    assert_eq!(ask(&mut connect(&proxy).await, "b").await, "b");
}

#[tokio::test]
async fn slow_is_so_many_bytes_per_second_until_it_is_over() {
    let (proxy, _server) = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set(Mode::Slow(1_000));
    let start = Instant::now();
    assert_eq!(ask(&mut stream, &"a".repeat(300)).await.len(), 300);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    stream.write_all("b".repeat(100_000).as_bytes()).await.unwrap();
    proxy.set(Mode::Pass);
    assert_eq!(read(&mut stream, 100_000).await.len(), 100_000);
}
