//! Header blocks in several frames: RFC 9113 §4.3 and §6.10.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Response},
    },
    frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY, PRIORITY_FIELDS, PROTOCOL_ERROR, UNKNOWN, frame, ping},
    port::Port,
};

/// Request whose header block is in frames of at most `size` bytes.
fn in_pieces(port: &Port, size: usize) -> Vec<u8> {
    let block = port.block();
    let (first, rest) = block.split_at(size);
    let mut frames = frame(HEADERS, 0, 1, first);
    for piece in rest.chunks(size) {
        frames.extend(frame(CONTINUATION, 0, 1, piece));
    }
    frames.extend(frame(CONTINUATION, END_HEADERS, 1, &[]));
    [frames, frame(DATA, END_STREAM, 1, port.body())].concat()
}

/// Header block that `between` interrupts.
fn interrupted(port: &Port, between: &[u8]) -> Vec<u8> {
    let block = port.block();
    let (first, rest) = block.split_at(10);
    [&frame(HEADERS, END_STREAM, 1, first), between, &frame(CONTINUATION, END_HEADERS, 1, rest)].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("4.3", "header block in two frames", |port| in_pieces(port, port.block().len() / 2 + 1), Response(1)),
        Case::new("4.3", "header block in four frames", |port| in_pieces(port, port.block().len() / 4 + 1), Response(1)),
        Case::new(
            "4.3",
            "PRIORITY within a header block",
            |port| interrupted(port, &frame(PRIORITY, 0, 1, &PRIORITY_FIELDS)),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "4.3",
            "HEADERS of another stream within a header block",
            |port| interrupted(port, &port.open(3)),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "4.3",
            "unknown frame type within a header block",
            |port| interrupted(port, &frame(UNKNOWN, 0, 0, &[])),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new("6.10", "PING within a header block", |port| interrupted(port, &ping([0; 8])), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "6.10",
            "CONTINUATION of another stream",
            |port| interrupted(port, &frame(CONTINUATION, 0, 3, &[])),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "6.10",
            "CONTINUATION on stream 0",
            |port| [frame(HEADERS, END_STREAM, 1, &port.block()), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "6.10",
            "CONTINUATION after END_HEADERS",
            |port| [port.open(1), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "6.10",
            "CONTINUATION after DATA",
            |port| [port.open(1), frame(DATA, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}
