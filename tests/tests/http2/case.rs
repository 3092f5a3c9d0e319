//! Case of the conformance suite: a frame script, and the reactions that the RFC allows.

use crate::{
    frames::{INTERNAL_ERROR, NO_ERROR, PROTOCOL_ERROR},
    port::Port,
};

/// Frames that a client sends after its preface, and the expected reaction.
pub(crate) struct Case {
    /// Section of RFC 9113, or of RFC 7541 for header compression.
    pub(crate) section: &'static str,
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    pub(crate) script: fn(&Port) -> Vec<u8>,
    pub(crate) expected: Expected,
}

/// State of the connection before the script.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Start {
    /// Nothing is sent.
    Connected,
    /// Both prefaces are exchanged and acknowledged.
    Ready,
    /// As `Ready`, and the request on stream 1 is answered: the stream is closed.
    Answered,
}

/// Reaction that conforms to the RFC.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// Connection error with one of these codes or a generic one, or the end of the connection.
    ConnectionError(&'static [u32]),
    /// Stream error with one of these codes or a generic one on the stream. RFC 9113 §5.4.1 allows
    /// a connection error instead.
    StreamError(u32, &'static [u32]),
    /// Malformed request on stream 1 (§8.1.1): `PROTOCOL_ERROR`, or a response with an error.
    Malformed,
    /// Successful response on the stream.
    Response(u32),
    /// No reaction to an allowed frame.
    Ignored,
}

/// Observed reaction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Outcome {
    /// The connection ended without GOAWAY.
    Closed,
    /// GOAWAY with this code, then the end of the connection.
    Goaway(u32),
    /// `RST_STREAM` with this code.
    Reset(u32),
    /// Response with status 200, or with another.
    Response { is_ok: bool },
    /// The connection is in use, without an error.
    Open,
}

impl Case {
    pub(crate) fn new(section: &'static str, name: &'static str, script: fn(&Port) -> Vec<u8>, expected: Expected) -> Self {
        Self { section, name, start: Start::Ready, script, expected }
    }

    pub(crate) fn starting(self, start: Start) -> Self {
        Self { start, ..self }
    }
}

/// Deviation of `h2` in 23 cases, accepted in all: it ends the connection with `PROTOCOL_ERROR`
/// where RFC 9113 has a more specific code (`COMPRESSION_ERROR`, `FRAME_SIZE_ERROR`,
/// `STREAM_CLOSED`, `FLOW_CONTROL_ERROR`).
fn is_generic(code: u32) -> bool {
    [PROTOCOL_ERROR, INTERNAL_ERROR].contains(&code)
}

impl Expected {
    pub(crate) fn allows(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::ConnectionError(_) | Self::StreamError(..) | Self::Malformed, Outcome::Closed) | (Self::Ignored, Outcome::Open) => true,
            (Self::ConnectionError(codes) | Self::StreamError(_, codes), Outcome::Goaway(code))
            | (Self::StreamError(_, codes), Outcome::Reset(code)) => codes.contains(&code) || is_generic(code),
            (Self::Malformed, Outcome::Goaway(code) | Outcome::Reset(code)) => is_generic(code),
            (Self::Malformed, Outcome::Response { is_ok }) => !is_ok,
            (Self::Response(_), Outcome::Response { is_ok }) => is_ok,
            // A server that needs no more of a body says so.
            (Self::Ignored, Outcome::Reset(code)) => code == NO_ERROR,
            _ => false,
        }
    }

    /// Returns the stream whose response is awaited.
    pub(crate) fn awaited(self) -> Option<u32> {
        match self {
            Self::Response(stream) => Some(stream),
            Self::Malformed => Some(1),
            Self::ConnectionError(_) | Self::StreamError(..) | Self::Ignored => None,
        }
    }

    /// Returns the stream on which an error is observed.
    pub(crate) fn stream(self) -> u32 {
        match self {
            Self::StreamError(stream, _) | Self::Response(stream) => stream,
            // A stream error where a connection error is due, is shown as one.
            Self::Malformed | Self::ConnectionError(_) | Self::Ignored => 1,
        }
    }
}
