//! Stream states and identifiers: RFC 9113 §5.1.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Ignored, Response, StreamError},
        Start,
    },
    frames::{
        CANCEL, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PRIORITY, PRIORITY_FIELDS, PROTOCOL_ERROR, STREAM_CLOSED, frame,
        reset, window_update,
    },
    port::Port,
};

/// A request that is complete, and then a frame on the same stream.
fn half_closed(port: &Port, then: &[u8]) -> Vec<u8> {
    [&port.request(1), then].concat()
}

/// A request that the client has reset, and then a frame on the same stream.
fn after_reset(port: &Port, then: &[u8]) -> Vec<u8> {
    [&port.open(1), &reset(1, CANCEL), then].concat()
}

fn headers(port: &Port) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &port.block())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = idle_and_half_closed();
    cases.extend(closed());
    cases.extend(identifiers());
    cases
}

fn idle_and_half_closed() -> Vec<Case> {
    vec![
        Case::new("5.1", "DATA on an idle stream", |_| frame(DATA, 0, 1, b"x"), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("5.1", "RST_STREAM on an idle stream", |_| reset(1, CANCEL), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("5.1", "WINDOW_UPDATE on an idle stream", |_| window_update(1, 100), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "5.1",
            "CONTINUATION on an idle stream",
            |port| frame(CONTINUATION, END_HEADERS, 1, &port.block()),
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        Case::new("5.1", "PRIORITY on an idle stream", |_| frame(PRIORITY, 0, 1, &PRIORITY_FIELDS), Ignored),
        Case::new(
            "5.1",
            "DATA on a half-closed stream",
            |port| half_closed(port, &frame(DATA, END_STREAM, 1, b"x")),
            StreamError(1, &[STREAM_CLOSED]),
        ),
        Case::new("5.1", "HEADERS on a half-closed stream", |port| half_closed(port, &headers(port)), StreamError(1, &[STREAM_CLOSED])),
        Case::new(
            "5.1",
            "CONTINUATION on a half-closed stream",
            |port| half_closed(port, &frame(CONTINUATION, END_HEADERS, 1, &port.block())),
            ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        Case::new(
            "5.1",
            "PRIORITY on a half-closed stream",
            |port| half_closed(port, &frame(PRIORITY, 0, 1, &PRIORITY_FIELDS)),
            Response(1),
        ),
        Case::new("5.1", "WINDOW_UPDATE on a half-closed stream", |port| half_closed(port, &window_update(1, 100)), Response(1)),
    ]
}

fn closed() -> Vec<Case> {
    vec![
        Case::new(
            "5.1",
            "DATA after RST_STREAM",
            |port| after_reset(port, &frame(DATA, END_STREAM, 1, b"x")),
            StreamError(1, &[STREAM_CLOSED]),
        ),
        Case::new("5.1", "HEADERS after RST_STREAM", |port| after_reset(port, &headers(port)), StreamError(1, &[STREAM_CLOSED])),
        Case::new("5.1", "PRIORITY after RST_STREAM", |port| after_reset(port, &frame(PRIORITY, 0, 1, &PRIORITY_FIELDS)), Ignored),
        Case::new("5.1", "DATA on a closed stream", |_| frame(DATA, END_STREAM, 1, b"x"), StreamError(1, &[STREAM_CLOSED]))
            .starting(Start::Answered),
        Case::new("5.1", "HEADERS on a closed stream", headers, ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]))
            .starting(Start::Answered),
        Case::new(
            "5.1",
            "CONTINUATION on a closed stream",
            |port| frame(CONTINUATION, END_HEADERS, 1, &port.block()),
            ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        )
        .starting(Start::Answered),
        Case::new("5.1", "PRIORITY on a closed stream", |_| frame(PRIORITY, 0, 1, &PRIORITY_FIELDS), Ignored).starting(Start::Answered),
        Case::new("5.1", "WINDOW_UPDATE on a closed stream", |_| window_update(1, 100), Ignored).starting(Start::Answered),
        Case::new("5.1", "RST_STREAM on a closed stream", |_| reset(1, CANCEL), Ignored).starting(Start::Answered),
    ]
}

fn identifiers() -> Vec<Case> {
    vec![
        Case::new("5.1.1", "even stream identifier", |port| port.request(2), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "5.1.1",
            "decreasing stream identifier",
            |port| [port.request(5), port.request(3)].concat(),
            ConnectionError(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        Case::new("5.1.1", "skipped stream identifiers", |port| port.request(101), Response(101)),
        Case::new("5.1.1", "largest stream identifier", |port| port.request(0x7fff_ffff), Response(0x7fff_ffff)),
    ]
}
