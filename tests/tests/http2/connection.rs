//! Connection over a plain socket that sends any bytes and observes the reaction.

use palisade_tests::HANG_TIMEOUT;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    case::{Case, Expected, Outcome, Start},
    frames::{ACK, Frame, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, RST_STREAM, SETTINGS, frame as frame_of, ping, settings},
    port::Port,
};

/// First byte of a header block that starts with `:status: 200` (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
/// PINGs that mark the end of a script. Their payloads are of no script.
const BARRIERS: [[u8; 8]; 2] = [*b"barrier1", *b"barrier2"];

/// Connection to a port.
pub(crate) struct Connection {
    socket: TcpStream,
    received: Vec<Frame>,
}

impl Connection {
    pub(crate) async fn open(port: &Port) -> Self {
        Self { socket: TcpStream::connect(&port.address).await.expect("the port accepts connections"), received: Vec::new() }
    }

    /// Exchanges prefaces and waits for the acknowledgement of these settings.
    pub(crate) async fn ready(port: &Port, own: &[(u16, u32)]) -> Self {
        let mut connection = Self::open(port).await;
        connection.send(&[PREFACE, &settings(own)].concat()).await;
        let acknowledged = connection.until(|frame| frame.acknowledges(SETTINGS)).await;
        assert!(acknowledged.is_some(), "no SETTINGS acknowledgement: {:?}", connection.received);
        connection
    }

    /// Sends bytes. The peer may have closed the connection: its reaction says why.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Returns the frames received so far.
    pub(crate) fn received(&self) -> &[Frame] {
        &self.received
    }

    /// Receives frames until one is wanted, `None` at the end of the connection.
    pub(crate) async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
        }
    }

    /// Receives a frame, and acknowledges SETTINGS. `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let frame = timeout(HANG_TIMEOUT, self.read()).await.unwrap_or_else(|_| panic!("no frame after {:?}", self.received))?;
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.send(&frame_of(SETTINGS, ACK, 0, &[])).await;
        }
        self.received.push(frame.clone());
        Some(frame)
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head).await.ok()?;
        let [l1, l2, l3, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l1, l2, l3]) as usize];
        self.socket.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// Receives frames until the reaction to `case` is known.
    ///
    /// A server handles frames in their order. Two PINGs end the script, the second one after the
    /// reply to the first: by then every error is sent.
    async fn observe(&mut self, case: &Case) -> Outcome {
        let (mut outcome, mut error, mut barriers) = (Outcome::Open, None, 0);
        let awaited = case.expected.awaited();
        if awaited.is_none() {
            self.send(&ping(BARRIERS[0])).await;
        }
        loop {
            let Some(frame) = self.next().await else { return error.map_or(Outcome::Closed, Outcome::Goaway) };
            match frame.kind {
                GOAWAY if frame.code() != NO_ERROR => error = error.or(Some(frame.code())),
                _ if error.is_some() => {}
                RST_STREAM if frame.stream == case.expected.stream() => outcome = Outcome::Reset(frame.code()),
                HEADERS if Some(frame.stream) == awaited && outcome == Outcome::Open => {
                    // Updates of the table size may come first (RFC 7541 §4.2, §6.3).
                    let field = frame.payload.iter().find(|byte| *byte >> 5 != 1);
                    outcome = Outcome::Response { is_ok: field == Some(&STATUS_200) };
                }
                PING if frame.acknowledges(PING) && frame.payload == BARRIERS[barriers] => {
                    barriers += 1;
                    let Some(next) = BARRIERS.get(barriers) else { return outcome };
                    self.send(&ping(*next)).await;
                }
                _ => {}
            }
            if error.is_none() && awaited.is_some_and(|stream| frame.ends(stream) || matches!(outcome, Outcome::Reset(_))) {
                return outcome;
            }
        }
    }
}

/// Runs a case and returns the reaction of the port.
pub(crate) async fn run(case: &Case, port: &Port) -> Outcome {
    let mut connection = match case.start {
        Start::Connected => Connection::open(port).await,
        Start::Ready | Start::Answered => Connection::ready(port, &[]).await,
    };
    if case.start == Start::Answered {
        connection.send(&port.request(1)).await;
        let end = connection.until(|frame| frame.ends(1)).await;
        assert!(end.is_some(), "{}: no response: {:?}", port.name, connection.received());
    }
    connection.send(&(case.script)(port)).await;
    connection.observe(case).await
}

/// Returns whether a new connection is served.
pub(crate) async fn is_serving(port: &Port) -> bool {
    let case = Case::new("3.4", "another connection", |port| port.request(1), Expected::Response(1));
    run(&case, port).await == Outcome::Response { is_ok: true }
}
