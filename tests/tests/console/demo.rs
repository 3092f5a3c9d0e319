//! `palisade demo`.

use palisade_tests::{Client, Shop, process::output_of, process::run};

#[tokio::test]
async fn demo_sends_a_bounded_load() {
    let shop = Shop::all_in_one();
    let (url, admin, data) = (shop.url(), shop.admin_url("gateway"), shop.directory().to_str().unwrap().to_owned());
    let arguments = ["demo", "--data-dir", &data, "--url", &url, "--admin-url", &admin, "--rate", "20", "--seconds", "2"];
    let output = output_of("palisade", &arguments);
    assert!(output.contains("20 requests/s for 2 s") && output.contains("responses: "), "{output}");
    assert!(output.contains("200: ") && (output.contains("201: ") || output.contains("202: ")), "{output}");
    let sent = shop.counted("gateway", "http_server_request_duration_seconds_count", &[]).await;
    assert!((5.0..=60.0).contains(&sent), "{sent} requests");
    let faults = Client::new(shop.admin_url("products"), None).get("/faults").attempt().await.unwrap().json();
    assert_eq!(faults["rules"].as_array().unwrap().len(), 0);
}

#[tokio::test]
async fn demo_needs_a_running_shop() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}", palisade_tests::free_port::free_port());
    let output = run("palisade", &["demo", "--data-dir", directory.path().to_str().unwrap(), "--url", &url, "--admin-url", &url]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("start palisade first"), "{error}");
    let output = run("palisade", &["demo", "--rate", "101"]);
    assert_eq!(output.status.code(), Some(2));
}
