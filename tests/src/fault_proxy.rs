//! A TCP proxy that can be made to fail: slow, silent or gone, while the processes on both sides stay as they are.

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
/// Chunks on their way in one direction; then the sender is held up.
const CHUNKS: usize = 64;

/// How a [`FaultProxy`] treats its connections, those that are there and those to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As if it were not there.
    Pass,
    /// Every byte arrives so much later, in either direction.
    Latency(Duration),
    /// Connections are accepted and stay open, but nothing arrives. What was sent arrives once the mode changes, as after a lost route.
    Blackhole,
    /// Connections are reset, new ones at once.
    Refuse,
    /// So many bytes per second in each direction of each connection.
    Slow(u32),
}

/// A listener on a port of its own that forwards to one address. Dropping it closes everything.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _accepting: JoinSet<()>,
}

impl FaultProxy {
    /// Forwards to `upstream`, which need not listen yet.
    pub async fn connect_to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let mode = watch::Sender::new(Mode::Pass);
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, upstream, mode.clone()));
        Self { address, mode, _accepting: accepting }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, mode: watch::Sender<Mode>) {
    let mut connections = JoinSet::new();
    loop {
        // Accepting fails when the other side has gone already.
        if let Ok((client, _)) = listener.accept().await {
            connections.spawn(serve(client, upstream, mode.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, upstream: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let mut refused = mode.clone();
    let refused = async move { refused.wait_for(|mode| *mode == Mode::Refuse).await.map(drop) };
    let mut server = None;
    let carried = async {
        throttle(&mut mode, Instant::now(), 0).await;
        let server = server.insert(TcpStream::connect(upstream).await?);
        carry(&mut client, server, &mode).await
    };
    let ended_well = tokio::select! {
        biased;
        _ = refused => false,
        carried = carried => carried.is_ok(),
    };
    if !ended_well {
        for stream in [Some(client), server].into_iter().flatten() {
            // Closing it resets it. An error means that it is closed already.
            let _ = stream.set_zero_linger();
        }
    }
}

/// Both directions, each to its end.
async fn carry(client: &mut TcpStream, server: &mut TcpStream, mode: &watch::Receiver<Mode>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::try_join!(pump(from_client, to_server, mode.clone()), pump(from_server, to_client, mode.clone()))?;
    Ok(())
}

/// What is read is queued with the time at which it came, so that a delay holds nothing up; an empty chunk is the end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut mode: watch::Receiver<Mode>) -> io::Result<()> {
    let (queue, mut queued) = mpsc::channel(CHUNKS);
    let read = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = from.read(&mut buffer).await?;
            let gone = queue.send((Instant::now(), buffer[..length].to_vec())).await.is_err();
            if length == 0 || gone {
                return Ok(());
            }
        }
    };
    let write = async move {
        while let Some((arrived, chunk)) = queued.recv().await {
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let length = throttle(&mut mode, arrived, rest.len()).await;
                to.write_all(&rest[..length]).await?;
                rest = &rest[length..];
            }
            if chunk.is_empty() {
                throttle(&mut mode, arrived, 0).await;
                return to.shutdown().await;
            }
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(drop)
}

/// Waits as long as the mode says, of now or of meanwhile; how many of these bytes may then go at once.
async fn throttle(mode: &mut watch::Receiver<Mode>, arrived: Instant, bytes: usize) -> usize {
    loop {
        let now = Instant::now();
        let (until, bytes) = match *mode.borrow_and_update() {
            Mode::Pass | Mode::Refuse => return bytes,
            Mode::Latency(latency) => (arrived + latency, bytes),
            // Longer than any test.
            Mode::Blackhole => (now + Duration::from_hours(1), 0),
            // A tenth of a second's worth at a time.
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
