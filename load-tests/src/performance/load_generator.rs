//! Load generators: wrk with 64 saturated connections, k6 at a fixed rate.

use std::{fmt, path::Path, process::Command};

use serde_json::Value;

use crate::k6;

/// Connections of wrk, if not said otherwise, and virtual users of k6.
pub(super) const CONNECTIONS: u32 = 64;

/// Load generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoadGenerator {
    Wrk,
    K6,
}

/// Request type.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) route: &'static str,
    pub(super) url: String,
    pub(super) token: String,
    /// Products to order. Empty for reads.
    pub(super) products: Vec<String>,
    /// Connections of wrk.
    pub(super) connections: u32,
    /// Rate of k6, requests per second.
    pub(super) rate: u32,
}

/// Result of a load.
#[derive(Debug)]
pub(super) struct LoadResult {
    pub(super) requests: f64,
    /// Orders answered with 202 and finished afterwards.
    pub(super) deferred: f64,
    pub(super) seconds: f64,
    /// Latency, milliseconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl fmt::Display for LoadGenerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wrk => "wrk",
            Self::K6 => "k6",
        })
    }
}

impl LoadGenerator {
    /// Sends these requests for `seconds`. Panics on a wrong response.
    pub(super) async fn load(self, request: &Request, seconds: u64) -> LoadResult {
        let mut command = match self {
            Self::Wrk => wrk(request, seconds),
            Self::K6 => k6(request, seconds),
        };
        let output = tokio::task::spawn_blocking(move || command.output().expect("wrk and k6 can be started"));
        let output = output.await.expect("load generator task does not panic");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let result: Value = text.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let number = |name: &str| result[name].as_f64().unwrap_or(0.0);
        let wrong = number("wrong");
        let valid = output.status.success() && number("requests") > 0.0 && wrong == 0.0;
        assert!(valid, "{self} got {wrong} wrong responses of {}:\n{text}{}", request.route, String::from_utf8_lossy(&output.stderr));
        LoadResult {
            requests: number("requests"),
            deferred: number("deferred"),
            seconds: number("seconds"),
            p50: number("p50"),
            p99: number("p99"),
        }
    }
}

fn wrk(request: &Request, seconds: u64) -> Command {
    let found = Command::new("wrk").arg("-v").output().is_ok();
    assert!(found, "wrk is missing, needed only by `make performance`: `apt-get install wrk` (Debian, Ubuntu)");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wrk/performance.lua");
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--connections", &request.connections.to_string(), "--duration", &format!("{seconds}s"), "--latency"]);
    command.arg("--timeout").arg("10s").arg("--script").arg(script);
    command.arg("--header").arg(format!("authorization: Bearer {}", request.token)).arg(&request.url);
    command.env("PRODUCTS", request.products.join(",")).env("PREFIX", palisade_tests::unique("wrk"));
    command
}

fn k6(request: &Request, seconds: u64) -> Command {
    let settings = [
        ("URL", request.url.clone()),
        ("TOKEN", request.token.clone()),
        ("PRODUCT_IDS", request.products.join(",")),
        ("RATE", request.rate.to_string()),
        ("DURATION", format!("{seconds}s")),
        ("VUS", CONNECTIONS.to_string()),
    ];
    k6::command("performance", &settings.map(|(name, value)| (name.to_owned(), value)))
}
