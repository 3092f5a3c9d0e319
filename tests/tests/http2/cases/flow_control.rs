//! `WINDOW_UPDATE`: RFC 9113 §6.9. `windows.rs` has what depends on the response.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Response, StreamError},
    },
    frames::{DATA, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, MAX_INCREMENT, PROTOCOL_ERROR, WINDOW_UPDATE, frame, window_update},
};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("6.9", "connection window opened by 0", |_| window_update(0, 0), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "6.9",
            "stream window opened by 0",
            |port| [port.open(1), window_update(1, 0)].concat(),
            StreamError(1, &[PROTOCOL_ERROR]),
        ),
        Case::new("6.9", "WINDOW_UPDATE of 3 bytes", |_| frame(WINDOW_UPDATE, 0, 0, &[0; 3]), ConnectionError(&[FRAME_SIZE_ERROR])),
        Case::new("6.9.1", "connection window above 2^31 - 1", |_| window_update(0, MAX_INCREMENT), ConnectionError(&[FLOW_CONTROL_ERROR])),
        Case::new(
            "6.9.1",
            "stream window above 2^31 - 1",
            |port| [port.open(1), window_update(1, MAX_INCREMENT)].concat(),
            StreamError(1, &[FLOW_CONTROL_ERROR]),
        ),
        Case::new(
            "6.9.1",
            "largest connection window",
            |port| [window_update(0, MAX_INCREMENT - 65_535), port.request(1)].concat(),
            Response(1),
        ),
        Case::new(
            "6.9",
            "reserved bit of the increment",
            |port| {
                let parts = [port.open(1), window_update(1, (1 << 31) | 1), frame(DATA, END_STREAM, 1, port.body())];
                parts.concat()
            },
            Response(1),
        ),
    ]
}
