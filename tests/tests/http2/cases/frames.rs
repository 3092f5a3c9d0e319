//! Frame format, frame size, and the frames of streams: RFC 9113 §4.1, §4.2, §6.1 to §6.4, §6.6.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Ignored, Response, StreamError},
    },
    frames::{
        DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS, MAX_FRAME_BYTES, PADDED, PING, PRIORITY, PRIORITY_FIELDS, PROTOCOL_ERROR,
        PUSH_PROMISE, RST_STREAM, SETTINGS, UNKNOWN, WITH_PRIORITY, frame, reset,
    },
    port::Port,
};

/// Message of the request in a padded DATA frame.
fn padded(port: &Port) -> Vec<u8> {
    let payload = [&[7], port.body(), &[0; 7]].concat();
    [port.open(1), frame(DATA, END_STREAM | PADDED, 1, &payload)].concat()
}

/// HEADERS with padding and priority.
fn padded_headers(port: &Port) -> Vec<u8> {
    let payload = [&[3], &PRIORITY_FIELDS[..], &port.block(), &[0; 3]].concat();
    let end = frame(DATA, END_STREAM, 1, port.body());
    [frame(HEADERS, END_HEADERS | PADDED | WITH_PRIORITY, 1, &payload), end].concat()
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = formats();
    cases.extend(stream_frames());
    cases
}

fn formats() -> Vec<Case> {
    vec![
        Case::new("4.1", "unknown frame type", |_| frame(UNKNOWN, 0xff, 0, b"any bytes"), Ignored),
        Case::new("4.1", "unknown frame type on an idle stream", |_| frame(UNKNOWN, 0xff, 1, b"any bytes"), Ignored),
        Case::new(
            "4.1",
            "unknown frame type within a request",
            |port| {
                let parts = [port.open(1), frame(UNKNOWN, 0, 1, &[0; 8]), frame(DATA, END_STREAM, 1, port.body())];
                parts.concat()
            },
            Response(1),
        ),
        Case::new("4.1", "reserved bit of the stream identifier", |_| frame(PING, 0, 1 << 31, &[0; 8]), Ignored),
        Case::new("4.1", "undefined flags of PING", |_| frame(PING, 0xfe, 0, &[0; 8]), Ignored),
        Case::new("4.2", "DATA of the maximum size", |port| [port.open(1), frame(DATA, 0, 1, &[0; MAX_FRAME_BYTES])].concat(), Ignored),
        Case::new(
            "4.2",
            "DATA above the maximum size",
            |port| [port.open(1), frame(DATA, 0, 1, &[0; MAX_FRAME_BYTES + 1])].concat(),
            StreamError(1, &[FRAME_SIZE_ERROR]),
        ),
        Case::new(
            "4.2",
            "HEADERS above the maximum size",
            |_| frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0; MAX_FRAME_BYTES + 1]),
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        Case::new(
            "4.2",
            "SETTINGS above the maximum size",
            |_| frame(SETTINGS, 0, 0, &[0; MAX_FRAME_BYTES + 2]),
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
    ]
}

fn stream_frames() -> Vec<Case> {
    vec![
        Case::new("6.1", "DATA on stream 0", |_| frame(DATA, 0, 0, b"x"), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.1", "padded DATA", padded, Response(1)),
        Case::new(
            "6.1",
            "padding as long as the DATA",
            |port| [port.open(1), frame(DATA, PADDED, 1, &[5, 0, 0, 0, 0])].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "6.1",
            "padded DATA without a padding length",
            |port| [port.open(1), frame(DATA, PADDED, 1, &[])].concat(),
            ConnectionError(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        Case::new(
            "6.2",
            "HEADERS on stream 0",
            |port| frame(HEADERS, END_HEADERS | END_STREAM, 0, &port.block()),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new("6.2", "HEADERS with padding and priority", padded_headers, Response(1)),
        Case::new(
            "6.2",
            "padding longer than the HEADERS",
            |port| frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[&[255], &port.block()[..]].concat()),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new(
            "6.2",
            "HEADERS too short for their priority",
            |_| frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, &[0; 4]),
            ConnectionError(&[PROTOCOL_ERROR, FRAME_SIZE_ERROR]),
        ),
        Case::new("6.3", "PRIORITY on stream 0", |_| frame(PRIORITY, 0, 0, &PRIORITY_FIELDS), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "6.3",
            "PRIORITY of 4 bytes",
            |port| [port.open(1), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
            StreamError(1, &[FRAME_SIZE_ERROR]),
        ),
        Case::new("6.4", "RST_STREAM on stream 0", |_| reset(0, 8), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "6.4",
            "RST_STREAM of 3 bytes",
            |port| [port.open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        Case::new(
            "6.6",
            "PUSH_PROMISE from a client",
            |port| [port.open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &port.block()[..]].concat())].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}
