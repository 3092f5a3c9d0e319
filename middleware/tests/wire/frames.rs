//! Hand-made HTTP/2 frames (RFC 9113 §4, §6), with headers without Huffman codes and dynamic table
//! (RFC 7541 §6.2.2).

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Error code of a `RST_STREAM` or `GOAWAY`.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// `:status`, as the server's encoder writes it the first time: from the static table, or as
    /// three Huffman-coded digits.
    pub(crate) fn status(&self) -> u16 {
        match *self.payload.as_slice() {
            [0x88, ..] => 200,
            [0x8c, ..] => 400,
            [0x8d, ..] => 404,
            [0x48, _, b1, b2, b3, ..] => {
                let (mut bits, mut remaining, mut status) = (u32::from_be_bytes([b1, b2, b3, 0]), 3, 0);
                while remaining > 0 {
                    // 0, 1 and 2 have five-bit codes, the other digits six bits (RFC 7541, appendix
                    // B).
                    let (digit, length) = if bits >> 27 < 3 { (bits >> 27, 5) } else { ((bits >> 26) - 0x19 + 3, 6) };
                    (bits, remaining, status) = (bits << length, remaining - 1, status * 10 + u16::try_from(digit).unwrap());
                }
                status
            }
            _ => panic!("unknown status encoding {:02x?}", self.payload),
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Client preface with settings.
pub(crate) fn preface(settings: &[(u16, u32)]) -> Vec<u8> {
    let settings: Vec<u8> = settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS, 0, 0, &settings).as_slice()].concat()
}

/// Block of literal header fields.
pub(crate) fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        // A length below 127 takes one byte; the rest of a longer one follows in groups of seven
        // bits (RFC 7541 §5.1).
        let mut coded = vec![u8::try_from(text.len().min(127)).unwrap()];
        if let Some(mut rest) = text.len().checked_sub(127) {
            while rest >= 128 {
                coded.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            coded.push(u8::try_from(rest).unwrap());
        }
        coded.extend(text.as_bytes());
        coded
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Complete request without a body, unless `flags` leave the stream open.
pub(crate) fn request(stream: u32, flags: u8, method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "test"), (":path", path), ("content-type", "application/grpc")];
    frame(HEADERS, flags | END_HEADERS, stream, &header_block(&fields))
}

/// Reads the next frame, `None` at the end. Acknowledges pings and settings.
pub(crate) async fn next<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I) -> Option<Frame> {
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.ok()?;
        let [l1, l2, l3, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, l1, l2, l3]) as usize];
        io.read_exact(&mut payload).await.ok()?;
        match kind {
            PING if flags & ACK == 0 => io.write_all(&frame(PING, ACK, 0, &payload)).await.ok()?,
            SETTINGS if flags & ACK == 0 => io.write_all(&frame(SETTINGS, ACK, 0, &[])).await.ok()?,
            PING | SETTINGS | WINDOW_UPDATE => {}
            _ => return Some(Frame { kind, stream: u32::from_be_bytes(stream), payload }),
        }
    }
}

/// Reads until a frame that is `wanted`.
pub(crate) async fn until<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
    loop {
        let frame = next(io).await?;
        if wanted(&frame) {
            return Some(frame);
        }
    }
}
