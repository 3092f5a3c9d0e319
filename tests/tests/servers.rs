//! Tests of the disposable servers: start, durability, pause.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Duration,
};

use palisade_tests::{
    Shop, eventually,
    servers::{self, Prometheus},
    shop::SERVICES,
};

fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql").args([url, "-tAc", sql]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn postgres_keeps_acknowledged_rows_after_kill() {
    let mut postgres = servers::durable_postgres();
    let url = postgres.url("crash");
    assert_eq!(postgres.url("crash"), url, "creating a database must be idempotent");
    psql(&url, "create table t (n int); insert into t values (7)");
    postgres.kill();
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());
    postgres.restart();
    assert_eq!(psql(&url, "select n from t"), "7");
}

#[test]
fn paused_postgres_is_silent_until_resumed() {
    // SSLRequest of the PostgreSQL protocol, answered with one byte.
    const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let postgres = servers::shared_postgres();
    let mut connection = TcpStream::connect(("127.0.0.1", postgres.port())).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    postgres.pause();
    connection.write_all(&SSL_REQUEST).unwrap();
    let silence = connection.read_exact(&mut [0]).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    postgres.resume();
    connection.set_read_timeout(None).unwrap();
    let mut answer = [0];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
}

#[test]
fn mongo_keeps_its_port_after_kill() {
    let mut mongo = servers::durable_mongo();
    let url = mongo.url("shop");
    mongo.kill();
    assert!(TcpStream::connect(("127.0.0.1", mongo.port())).is_err());
    mongo.restart();
    assert_eq!(mongo.url("shop"), url);
    assert!(TcpStream::connect(("127.0.0.1", mongo.port())).is_ok());
}

#[tokio::test]
async fn prometheus_scrapes_a_shop_and_evaluates_rules() {
    let shop = Shop::all_in_one();
    let rules = shop.directory().join("rules.yml");
    fs::write(&rules, "groups: [{ name: tests, rules: [{ record: 'tests:up', expr: 'sum(up)' }] }]").unwrap();
    let prometheus = Prometheus::scraping(&shop, &[Path::new(&rules)]);
    prometheus.ready().await;
    let up: BTreeMap<_, _> = prometheus.query("up").await.iter().map(|sample| (sample.label("job").to_owned(), sample.value)).collect();
    assert_eq!(up, SERVICES.map(|service| (service.to_owned(), 1.0)).into());
    assert_eq!(prometheus.query("count(up)").await.first().map(|sample| sample.value), Some(3.0));
    eventually(async || prometheus.query("tests:up").await.first().filter(|sample| sample.value >= 3.0).map(|_| ())).await;
    assert!(prometheus.query("scalar(vector(1)) / 0").await[0].value.is_infinite());
}

#[tokio::test]
#[should_panic(expected = "parse error")]
async fn prometheus_reports_parse_errors() {
    Prometheus::start("{}").query("up{").await;
}
