//! Graceful shutdown: not ready immediately, requests in flight complete, exit code 0.

use palisade_tests::{
    Client, Shop, eventually,
    process::{Program, command},
    shop::ALL_SCOPES,
    shop_helpers::product_body,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test]
async fn shutdown_completes_requests_in_flight() {
    // Leaves time to observe "not ready" before the port closes.
    let mut shop = Shop::separate_with(None, None, |_, command| {
        command.env("PALISADE_SERVER__LAME_DUCK_MS", "2000");
    });
    let admin = Client::new(shop.admin_url("gateway"), None);
    let body = product_body(1).to_string();
    let (url, token) = (shop.url(), shop.token("seller", ALL_SCOPES));
    let host = url.trim_start_matches("http://");
    let mut connection = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /products HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    // The server requests the body once it handles the request (RFC 9110 §10.1.1), so the request
    // is in flight.
    let mut read = vec![0; 25];
    connection.read_exact(&mut read).await.unwrap();
    assert_eq!(read, b"HTTP/1.1 100 Continue\r\n\r\n");

    shop.program("gateway").terminate();
    eventually(async || {
        let answer = admin.get("/readyz").attempt().await;
        answer.is_ok_and(|answer| answer.status == 503).then_some(())
    })
    .await;

    connection.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    assert_eq!(shop.program_mut("gateway").exit_code(), Some(0));
}

#[tokio::test]
async fn shutdown_is_clean_with_idle_connections() {
    let mut shop = Shop::separate(None, None);
    shop.client("caller", ALL_SCOPES).get("/products").await.ok(200);
    let silent = TcpStream::connect(shop.url().trim_start_matches("http://")).await.unwrap();
    for service in ["gateway", "orders", "products"] {
        shop.program(service).terminate();
        assert_eq!(shop.program_mut(service).exit_code(), Some(0), "{service}");
    }
    drop(silent);
}

#[tokio::test]
async fn acknowledged_writes_survive_shutdown() {
    let mut shop = Shop::all_in_one();
    let created = shop.client("seller", ALL_SCOPES).post("/products", &product_body(3)).await.ok(201);
    shop.program("gateway").terminate();
    shop.program_mut("gateway").exit_code();
    shop.program_mut("gateway").restart();
    shop.ready().await;
    let path = format!("/products/{}", created["id"].as_str().unwrap());
    assert_eq!(shop.client("seller", ALL_SCOPES).get(path).await.ok(200), created);
}

#[tokio::test]
async fn shutdown_during_start_is_clean() {
    // Stores that refuse connections, so that the start waits for readiness.
    for (key, store) in [("PRODUCTS", "mongodb://127.0.0.1:1/shop"), ("ORDERS", "postgres://shop@127.0.0.1:1/shop")] {
        let directory = TempDir::with_prefix("palisade-shutdown-").unwrap();
        let mut command = command("palisade");
        command.arg("--data-dir").arg(directory.path());
        for listener in ["gateway", "products", "orders"] {
            command.args([format!("--{listener}-listen"), "127.0.0.1:0".to_owned()]);
            command.args([format!("--{listener}-admin-listen"), "127.0.0.1:0".to_owned()]);
        }
        command.env(format!("PALISADE_{key}__STORE__URL"), store);
        let mut program = Program::start(command, directory.path());
        program.url("gateway-admin");
        program.terminate();
        assert_eq!(program.exit_code(), Some(0), "{key}: {}", program.last_lines());
        assert!(program.log().contains("process stopped"), "{key}: {}", program.last_lines());
    }
}
