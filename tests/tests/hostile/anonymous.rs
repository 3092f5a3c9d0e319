//! Callers without a valid token: they may not use what others need.

use std::{
    future::pending,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use palisade_tests::{
    Client, Shop, eventually,
    jwt::{self, SECRET},
    shop::ALL_SCOPES,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    attack::{Attack, address_of},
    victim::Victim,
};

/// Address of the attacker. The victim has another one, with another address limit.
const ATTACKER: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 0));

/// Repeats a request without a valid token over fifty connections.
fn flood(attack: &mut Attack, shop: &Shop, head: &str) {
    let target = address_of(&shop.url());
    for _ in 0..50 {
        let head = head.to_owned();
        attack.spawn(async move {
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(ATTACKER).unwrap();
                let Ok(mut connection) = socket.connect(target).await else { continue };
                while connection.write_all(head.as_bytes()).await.is_ok() && matches!(connection.read(&mut [0; 4096]).await, Ok(1..)) {}
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flood_without_token_harms_nobody() {
    let shop = Shop::all_in_one();
    let victim = Victim::enter(&shop).await;
    let before = rejected(&shop).await;
    let start = async || {
        let mut attack = Attack::default();
        for header in ["x-request-timeout: 0", "x-request-timeout: 30000", "authorization: Bearer a.b.c"] {
            flood(&mut attack, &shop, &format!("GET /products HTTP/1.1\r\nhost: shop\r\n{header}\r\n\r\n"));
        }
        eventually(async || (rejected(&shop).await > before + 500.0).then_some(())).await;
        attack
    };
    victim.assert_served_during("flood without a token", start).await;
}

/// Returns the number of rejected requests so far.
async fn rejected(shop: &Shop) -> f64 {
    shop.counted("gateway", "palisade_auth_rejections_total", &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_key_set_harms_no_other_issuer() {
    const ISSUER: &str = "https://hanging.palisade.invalid";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let mut attack = Attack::default();
    attack.spawn(async move {
        let mut open = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            open.push(connection);
        }
    });
    let shop = Shop::separate_with(None, None, |service, command| {
        if service == "gateway" {
            let settings = [("ISSUER", ISSUER), ("JWKS_URL", &url), ("SUBJECT_PREFIX", "hanging:")];
            command.envs(settings.map(|(key, value)| (format!("PALISADE_AUTH__ISSUERS__HANGING__{key}"), value)));
        }
    });
    let victim = Victim::enter(&shop).await;
    let start = async || {
        let (client, number) = (Client::new(shop.url(), None), Arc::new(AtomicUsize::new(0)));
        attack.repeat(64, move || {
            let mut claims = jwt::claims("unknown", ALL_SCOPES);
            claims["iss"] = json!(ISSUER);
            let key = format!("unknown-{}", number.fetch_add(1, Ordering::Relaxed));
            let token = jwt::sign(&json!({ "alg": "RS256", "typ": "JWT", "kid": key }), &claims, SECRET.as_bytes());
            client.get("/products").header("authorization", format!("Bearer {token}"))
        });
        attack.wait_for_answers(64).await;
        attack
    };
    victim.assert_served_during("hanging key set", start).await;
    let tasks = shop.counted("gateway", "tokio_alive_tasks", &[]).await;
    assert!(tasks < 1_000.0, "{tasks} tasks in the gateway");
}

/// Opens a stream of health changes on a port of products, and keeps it open. Counts streams that
/// were opened, and those that were refused.
async fn watch_health(channel: Channel, opened: Arc<AtomicUsize>, refused: Arc<AtomicUsize>) {
    match HealthClient::new(channel).watch(HealthCheckRequest::default()).await {
        Ok(stream) => {
            opened.fetch_add(1, Ordering::Relaxed);
            let _open = stream;
            pending::<()>().await;
        }
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_watches_are_limited_per_address() {
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 200;
    /// Default of `server.max_streams_per_caller`.
    const MAX_STREAMS_PER_CALLER: usize = 32;
    let shop = Shop::separate(None, None);
    let victim = Victim::enter(&shop).await;
    let (opened, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let start = async || {
        let mut attack = Attack::default();
        for _ in 0..CONNECTIONS {
            let endpoint = Endpoint::from_shared(shop.grpc_url("products")).unwrap().local_address(Some(ATTACKER.ip()));
            let channel = endpoint.connect_lazy();
            for _ in 0..STREAMS {
                attack.spawn(watch_health(channel.clone(), opened.clone(), refused.clone()));
            }
        }
        eventually(async || (refused.load(Ordering::Relaxed) > STREAMS).then_some(())).await;
        attack
    };
    victim.assert_served_during("health watches", start).await;
    let opened = opened.load(Ordering::Relaxed);
    assert!(opened <= MAX_STREAMS_PER_CALLER, "{opened} streams of one address are open");
}
