//! The throw-away servers themselves: they start, keep what they promise, and fall silent when told to.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use palisade_tests::servers;

fn psql(url: &str, sql: &str) -> String {
    let output = Command::new("psql").args([url, "-tAc", sql]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn postgres_keeps_acknowledged_rows_through_a_kill() {
    let mut postgres = servers::durable_postgres();
    let url = postgres.url("crash");
    assert_eq!(postgres.url("crash"), url, "a database is created once");
    psql(&url, "create table t (n int); insert into t values (7)");
    postgres.kill();
    assert!(TcpStream::connect(("127.0.0.1", postgres.port())).is_err());
    postgres.restart();
    assert_eq!(psql(&url, "select n from t"), "7");
}

#[test]
fn a_paused_postgres_answers_nothing_until_it_is_resumed() {
    // "Do you speak TLS?" (PostgreSQL protocol, SSLRequest): one byte comes back.
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
fn the_stand_in_for_mongo_listens_on_its_port_again_after_a_kill() {
    let mut mongo = servers::durable_mongo();
    let url = mongo.url("shop");
    mongo.kill();
    assert!(TcpStream::connect(("127.0.0.1", mongo.port())).is_err());
    mongo.restart();
    assert_eq!(mongo.url("shop"), url);
    assert!(TcpStream::connect(("127.0.0.1", mongo.port())).is_ok());
}
