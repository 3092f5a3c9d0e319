//! Start-up time: from program start to the first 200, all three services in one process on SQLite.

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

/// Number of starts of each kind.
const STARTS: usize = 11;

/// Start-up times, milliseconds, in ascending order.
#[derive(Debug)]
pub struct StartUp {
    /// Without data: databases and tables are created.
    pub(super) first: Vec<f64>,
    /// With the data of an earlier run.
    pub(super) with_data: Vec<f64>,
    /// Resident memory after the start, MiB.
    pub(super) resident: f64,
}

/// Child process, killed on drop.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl StartUp {
    pub(super) async fn measure() -> Self {
        let (mut first, mut with_data, mut resident) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..STARTS {
            let directory = TempDir::with_prefix("palisade-start-").expect("a temporary directory can be made");
            first.push(start(directory.path()).await.0);
            let (took, memory) = start(directory.path()).await;
            with_data.push(took);
            resident = memory;
        }
        for times in [&mut first, &mut with_data] {
            times.sort_by(f64::total_cmp);
        }
        Self { first, with_data, resident }
    }
}

/// Returns the time until `GET /products` succeeds, milliseconds, and the resident memory
/// afterwards.
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
    let mut ticks = interval(Duration::from_millis(1));
    let started = Instant::now();
    let running = KillOnDrop(command.spawn().expect("a built program can be started"));
    loop {
        ticks.tick().await;
        if client.get("/products").attempt().await.is_ok_and(|answer| answer.status == 200) {
            return (started.elapsed().as_secs_f64() * 1e3, resident(running.0.id()));
        }
        assert!(started.elapsed() < Duration::from_mins(1), "no response within a minute");
    }
}
