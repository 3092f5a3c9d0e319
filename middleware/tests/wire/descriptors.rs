//! File descriptor exhaustion: the accept loop backs off without busy waiting, and open connections
//! are still served.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use palisade_middleware::{respond::Protocol, server::Config};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::fixture::{Server, TEST_TIMEOUT};

const CHILD: &str = "PALISADE_WIRE_CHILD";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

struct ChildGuard(Child);

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl ChildGuard {
    /// CPU time in hundredths of a second: fields 14 and 15 of `proc_pid_stat`, counted after the
    /// bracketed process name.
    fn cpu_time(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    stream.write_all(GET).await.is_ok() && stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn fd_exhaustion_pauses_accept_and_recovers() {
    if std::env::var(CHILD).is_ok() {
        let server = Server::start(Protocol::Http, Config { first_request_timeout_ms: 600_000, ..Config::default() });
        // Starts a new line: the test harness has written to the current one.
        writeln!(std::io::stdout(), "\nlistening {}", server.address).unwrap();
        server.serving.await.unwrap();
        return;
    }
    let this = "descriptors::fd_exhaustion_pauses_accept_and_recovers";
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", std::env::current_exe().unwrap().to_str().unwrap()])
        .args(["--exact", this, "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let child = ChildGuard(child);
    let address = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("listening ").map(str::to_owned));
    let address: SocketAddr = address.expect("the server starts").parse().unwrap();

    let mut served = TcpStream::connect(address).await.unwrap();
    assert!(is_answered(&mut served).await);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    let exhausted = async {
        while child.descriptors() < 64 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, exhausted).await.expect("all descriptors are used in time");
    let before = child.cpu_time();
    sleep(Duration::from_secs(2)).await;
    let used = child.cpu_time() - before;
    assert!(used <= 20, "{used} hundredths of a second in two seconds");
    assert!(timeout(TEST_TIMEOUT, is_answered(&mut served)).await.unwrap());

    drop(idle);
    let mut later = TcpStream::connect(address).await.unwrap();
    assert!(timeout(TEST_TIMEOUT, is_answered(&mut later)).await.expect("descriptors are free again"));
}
