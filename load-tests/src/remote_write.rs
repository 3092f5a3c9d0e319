//! Prometheus remote write of k6's metrics, with the names used by the load test dashboard.

use std::{
    env,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

/// Variable with the remote write URL: a Prometheus started with
/// `--web.enable-remote-write-receiver`.
pub const URL: &str = "K6_PROMETHEUS_RW_SERVER_URL";

/// Exported statistics, each its own series: `k6_http_req_duration_p95` and so on, in seconds.
const STATISTICS: &str = "p(50),p(90),p(95),p(99),avg,min,max";
/// Address of Prometheus in `make up`.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9090";
/// Timeout for connecting and reading on the local machine.
const LOCAL_TIMEOUT: Duration = Duration::from_millis(500);
/// Timeout for reading the metrics of a service under load.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Enables remote write in k6.
pub(crate) fn configure(command: &mut Command, scenario: &str) {
    command.args(["--out", "experimental-prometheus-rw", "--tag", &format!("testid={scenario}")]);
    // Stale markers end the series with the run. Otherwise the last value would persist for five
    // minutes.
    for (name, value) in [("K6_PROMETHEUS_RW_TREND_STATS", STATISTICS), ("K6_PROMETHEUS_RW_STALE_MARKERS", "true")] {
        if env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
}

/// Returns the remote write URL: from the environment, or of a Prometheus at the default address
/// that accepts it.
pub fn find_url() -> Option<String> {
    env::var(URL).ok().or_else(|| url_at(DEFAULT_ADDRESS.parse().ok()?))
}

/// Returns the remote write URL of a Prometheus at `address`, if it accepts remote write.
pub fn url_at(address: SocketAddr) -> Option<String> {
    let is_prometheus = request(address, "GET /-/ready", LOCAL_TIMEOUT)?.contains("Prometheus");
    // An empty body is a bad request (400). Without the receiver the path is unknown (404).
    let accepts = !request(address, "POST /api/v1/write", LOCAL_TIMEOUT)?.starts_with("HTTP/1.1 404");
    (is_prometheus && accepts).then(|| format!("http://{address}/api/v1/write"))
}

/// Returns the response of a service's admin port, head included.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<String> {
    request(address, &format!("GET {path}"), METRICS_TIMEOUT)
}

/// Sends a request and returns the complete response text.
fn request(address: SocketAddr, line: &str, timeout: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, LOCAL_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    write!(stream, "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    Some(response)
}
