//! TCP fault proxy: adds latency, drops or resets connections, or limits bandwidth between two
//! unchanged processes.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};

const CHUNK_BYTES: usize = 16 * 1024;
/// Queued chunks per direction. The sender is blocked beyond that.
const QUEUED_CHUNKS: usize = 64;

/// Behaviour of a [`FaultProxy`], for open and new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything unchanged.
    Pass,
    /// Delays every byte in both directions.
    Latency(Duration),
    /// Accepts connections and keeps them open but delivers nothing. Sent data is delivered once
    /// the mode changes, as after a lost route.
    Blackhole,
    /// Delivers what clients send, and holds what servers answer: requests take effect unanswered.
    HoldAnswers,
    /// Resets open and new connections immediately.
    Refuse,
    /// Bandwidth per direction and connection, bytes per second.
    Slow(u32),
}

/// Direction of forwarded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

/// Proxy with its own port that forwards to one address. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _accepting: JoinSet<()>,
}

impl FaultProxy {
    /// Starts a proxy for `upstream`, which need not listen yet.
    pub async fn connect_to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("listener is bound");
        let mode = watch::Sender::new(Mode::Pass);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, mode.clone()));
        Self { address, mode, _accepting: accepting }
    }

    /// Returns the address of the proxy.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode immediately.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mode: watch::Sender<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        // `accept` fails if the peer has closed the connection already.
        if let Ok((client, _)) = listener.accept().await {
            connections.spawn(serve(client, upstream, mode.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let mut mode_changes = mode.clone();
    let refused = async move { mode_changes.wait_for(|mode| *mode == Mode::Refuse).await.map(drop) };
    let mut server = None;
    let forwarded = async {
        throttle(&mut mode, Direction::ToServer, Instant::now(), 0).await;
        let server = server.insert(TcpStream::connect(upstream).await?);
        forward(&mut client, server, &mode).await
    };
    let succeeded = tokio::select! {
        biased;
        _ = refused => false,
        result = forwarded => result.is_ok(),
    };
    if !succeeded {
        for stream in [Some(client), server].into_iter().flatten() {
            // Closing the socket resets the connection. An error means that it is closed already.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Forwards both directions up to their ends.
async fn forward(client: &mut TcpStream, server: &mut TcpStream, mode: &watch::Receiver<Mode>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = pump(from_client, to_server, Direction::ToServer, mode.clone());
    let down = pump(from_server, to_client, Direction::ToClient, mode.clone());
    tokio::try_join!(up, down)?;
    Ok(())
}

/// Forwards one direction. Chunks are queued with their arrival time, so that a delay does not
/// block reading. An empty chunk marks the end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, direction: Direction, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel(QUEUED_CHUNKS);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            let receiver_closed = queue.send((Instant::now(), buffer[..length].to_vec())).await.is_err();
            if length == 0 || receiver_closed {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((arrived, chunk)) = queued.recv().await {
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let length = throttle(&mut mode, direction, arrived, rest.len()).await;
                to.write_all(&rest[..length]).await?;
                rest = &rest[length..];
            }
            if chunk.is_empty() {
                throttle(&mut mode, direction, arrived, 0).await;
                return to.shutdown().await;
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

/// Waits according to the mode, including changes of the mode meanwhile. Returns the number of
/// bytes that may be sent next.
async fn throttle(mode: &mut watch::Receiver<Mode>, direction: Direction, arrived: Instant, bytes: usize) -> usize {
    loop {
        let now = Instant::now();
        let (until, bytes) = match *mode.borrow_and_update() {
            Mode::Pass | Mode::Refuse => return bytes,
            Mode::HoldAnswers if direction == Direction::ToServer => return bytes,
            Mode::Latency(latency) => (arrived + latency, bytes),
            // Longer than any test.
            Mode::Blackhole | Mode::HoldAnswers => (now + Duration::from_hours(1), 0),
            // Sends the bytes of a tenth of a second at a time.
            Mode::Slow(rate) => {
                let bytes = bytes.min((rate as usize / 10).max(1));
                (now + Duration::from_micros(bytes as u64 * 1_000_000 / u64::from(rate.max(1))), bytes)
            }
        };
        if timeout_at(until, mode.changed()).await.is_err() {
            return bytes;
        }
    }
}

#[cfg(test)]
mod tests;
