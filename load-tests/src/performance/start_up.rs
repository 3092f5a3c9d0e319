//! From the start of the program to its first 200: all three services in one process, on SQLite.

use std::{
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use palisade_tests::{
    Client,
    process::{command, output_of},
    servers::free_port,
};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

use super::cpu_usage::resident;

/// Of each kind.
const STARTS: usize = 11;

/// How long starts took, milliseconds, shortest first.
#[derive(Debug)]
pub struct StartUp {
    /// Where nothing was: databases and tables are made.
    pub(super) first: Vec<f64>,
    /// On what an earlier run left.
    pub(super) again: Vec<f64>,
    /// Resident memory after it, MiB.
    pub(super) resident: f64,
}

/// Killed when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl StartUp {
    pub(super) async fn measure() -> Self {
        let (mut first, mut again, mut resident) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..STARTS {
            let directory = TempDir::with_prefix("palisade-start-").expect("a temporary directory can be made");
            first.push(start(directory.path()).await.0);
            let (took, memory) = start(directory.path()).await;
            again.push(took);
            resident = memory;
        }
        for times in [&mut first, &mut again] {
            times.sort_by(f64::total_cmp);
        }
        Self { first, again, resident }
    }
}

/// Milliseconds until `GET /products` is answered with 200, and the memory that is resident then.
async fn start(data: &Path) -> (f64, f64) {
    let directory = data.to_str().expect("a temporary path is UTF-8");
    let token = output_of("palisade", &["token", "--data-dir", directory, "--sub", "early", "--scope", "products:read"]);
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = command("palisade");
    command.arg("--data-dir").arg(data).args(["--gateway-listen", &address]);
    for listener in ["gateway-admin", "products", "products-admin", "orders", "orders-admin"] {
        command.args([&format!("--{listener}-listen"), "127.0.0.1:0"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let client = Client::new(format!("http://{address}"), Some(token));
    let mut pace = interval(Duration::from_millis(1));
    let began = Instant::now();
    let running = Running(command.spawn().expect("a built program can be started"));
    loop {
        pace.tick().await;
        if client.get("/products").attempt().await.is_ok_and(|answer| answer.status == 200) {
            return (began.elapsed().as_secs_f64() * 1e3, resident(running.0.id()));
        }
        assert!(began.elapsed() < Duration::from_mins(1), "no answer within a minute");
    }
}
