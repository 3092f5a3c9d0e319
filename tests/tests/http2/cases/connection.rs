//! Connection preface and frames of the whole connection: RFC 9113 §3.4, §5.4, §6.7, §6.8, §7.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Ignored, Response},
        Start,
    },
    frames::{ACK, FRAME_SIZE_ERROR, GOAWAY, PING, PREFACE, PROTOCOL_ERROR, frame, ping, reset, settings},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("3.4", "request right after the preface", |port| [PREFACE, &settings(&[]), &port.request(1)].concat(), Response(1))
            .starting(Start::Connected),
        Case::new("3.4", "invalid preface", |_| b"INVALID CONNECTION PREFACE\r\n\r\n".to_vec(), ConnectionError(&[PROTOCOL_ERROR]))
            .starting(Start::Connected),
        Case::new(
            "3.4",
            "preface without SETTINGS",
            |port| [PREFACE, &ping([0; 8]), &port.request(1)].concat(),
            ConnectionError(&[PROTOCOL_ERROR]),
        )
        .starting(Start::Connected),
        Case::new("6.7", "PING on a stream", |_| frame(PING, 0, 1, &[0; 8]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.7", "PING of 6 bytes", |_| frame(PING, 0, 0, &[0; 6]), ConnectionError(&[FRAME_SIZE_ERROR])),
        Case::new("6.7", "PING of 9 bytes", |_| frame(PING, 0, 0, &[0; 9]), ConnectionError(&[FRAME_SIZE_ERROR])),
        Case::new("6.7", "acknowledgement of no PING", |_| frame(PING, ACK, 0, b"unasked!"), Ignored),
        Case::new("6.8", "GOAWAY on a stream", |_| frame(GOAWAY, 0, 1, &[0; 8]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.8", "GOAWAY after a request", |port| [port.request(1), frame(GOAWAY, 0, 0, &[0; 8])].concat(), Response(1)),
        Case::new("7", "unknown error code in RST_STREAM", |port| [port.open(1), reset(1, 0xff), port.request(3)].concat(), Response(3)),
    ]
}
