//! Connections and memory: idle connections give way, and unread responses are bounded.

use std::{future::pending, net::SocketAddr};

use bytes::Bytes;
use http::Request;
use palisade_tests::{
    Client, Shop, eventually,
    shop::{ALL_SCOPES, CUSTOMER},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::{
    attack::{Attack, address_of},
    victim::Victim,
};

/// Connection limit of the attacked port, small so that the test opens few connections.
const MAX_CONNECTIONS: usize = 192;

/// Keeps a connection from `source` open and idle, and opens another one whenever it is closed.
async fn collect_connections(source: SocketAddr, target: SocketAddr) {
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(source).unwrap();
        let Ok(mut connection) = socket.connect(target).await else { continue };
        if connection.write_all(b"GET /livez HTTP/1.1\r\nhost: shop\r\n\r\n").await.is_ok() {
            // Reads the response, then the end.
            while matches!(connection.read(&mut [0; 1024]).await, Ok(1..)) {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_many_addresses_give_way() {
    let shop = Shop::all_in_one_with(|command| {
        command.env("PALISADE_GATEWAY__SERVER__MAX_CONNECTIONS", MAX_CONNECTIONS.to_string());
    });
    let victim = Victim::enter(&shop).await;
    let admin = Client::new(shop.admin_url("gateway"), None);
    let evicted = async || {
        let metrics = admin.get("/metrics").attempt().await.ok()?.text();
        let line = "palisade_connections_closed_total{reason=\"evicted\"} ";
        metrics.lines().find_map(|shown| shown.strip_prefix(line)?.parse::<f64>().ok()).filter(|count| *count > 0.0)
    };
    let start = async || {
        let mut attack = Attack::default();
        let target = address_of(&shop.url());
        for host in 1..=8_u8 {
            for _ in 0..=MAX_CONNECTIONS / 8 {
                attack.spawn(collect_connections(SocketAddr::from(([127, 0, 1, host], 0)), target));
            }
        }
        eventually(evicted).await;
        attack
    };
    victim.assert_served_during("idle connections", start).await;
}

/// Requests `list` a hundred times over one HTTP/2 connection without window, and again over a new
/// one whenever the server closes it.
async fn hoard_unread(target: SocketAddr, list: Request<()>) {
    loop {
        let Ok(connection) = TcpStream::connect(target).await else { continue };
        let mut builder = h2::client::Builder::new();
        let Ok((mut sender, connection)) = builder.initial_window_size(0).handshake::<_, Bytes>(connection).await else { continue };
        let list = &list;
        let requests = async move {
            let mut unread = Vec::new();
            for _ in 0..100 {
                let Ok(ready) = sender.ready().await else { break };
                sender = ready;
                unread.extend(sender.send_request(list.clone(), true));
            }
            pending::<()>().await;
        };
        tokio::select! {
            closed = connection => drop(closed),
            () = requests => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_lists_are_bounded_in_memory() {
    const MIB: f64 = 1024.0 * 1024.0;
    let shop = Shop::all_in_one();
    let seller = shop.client("seller", ALL_SCOPES);
    for number in 0..100 {
        let body =
            json!({ "name": format!("Volume {number}"), "description": "x".repeat(4_000), "price": 1, "quantity": 1, "category": "books" });
        seller.post("/products", &body).await.ok(201);
    }
    let admin = Client::new(shop.admin_url("gateway"), None);
    let metric = async |series: &str| {
        let metrics = admin.get("/metrics").attempt().await.ok()?.text();
        metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse::<f64>().ok())
    };
    let memory = async || eventually(async || metric("process_resident_memory_bytes ").await).await / MIB;
    let before = memory().await;
    let mut attack = Attack::default();
    let token = shop.token("hoarder", CUSTOMER);
    for _ in 0..10 {
        let list = Request::get(format!("{}/products?limit=100&category=books", shop.url()));
        let list = list.header("authorization", format!("Bearer {token}")).body(()).unwrap();
        attack.spawn(hoard_unread(address_of(&shop.url()), list));
    }
    // A thousand lists of 400 kB wait, were it not for the limit.
    let (mut most, mut closed) = (before, 0.0);
    while closed < 20.0 {
        most = memory().await.max(most);
        closed = metric("palisade_connections_closed_total{reason=\"waiting_bytes\"}").await.unwrap_or(closed);
    }
    attack.stop().await;
    eventually(async || metric("palisade_connections_waiting_bytes{listener=\"public\"}").await.filter(|bytes| *bytes < 1.0)).await;
    let after = memory().await;
    eprintln!("unread lists: resident memory {before:.0} MiB before, at most {most:.0} MiB, {after:.0} MiB after");
    assert!(most < before + 300.0 && after < before + 200.0, "{before:.0} MiB before, at most {most:.0}, {after:.0} after");
}
