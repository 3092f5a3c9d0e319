//! SETTINGS: RFC 9113 §6.5.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Ignored, Response},
    },
    frames::{ACK, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, SETTINGS, frame, settings},
};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
/// Setting that no document defines.
const UNKNOWN: u16 = 0xff;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "6.5",
            "SETTINGS acknowledgement with a payload",
            |_| frame(SETTINGS, ACK, 0, &[0; 6]),
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        Case::new("6.5", "SETTINGS on a stream", |_| frame(SETTINGS, 0, 1, &[]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.5", "half a setting", |_| frame(SETTINGS, 0, 0, &[0, 3, 0]), ConnectionError(&[FRAME_SIZE_ERROR])),
        Case::new("6.5.2", "ENABLE_PUSH of 2", |_| settings(&[(ENABLE_PUSH, 2)]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new(
            "6.5.2",
            "INITIAL_WINDOW_SIZE above 2^31 - 1",
            |_| settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]),
            ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        Case::new("6.5.2", "MAX_FRAME_SIZE below 2^14", |_| settings(&[(MAX_FRAME_SIZE, 16_383)]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.5.2", "MAX_FRAME_SIZE above 2^24 - 1", |_| settings(&[(MAX_FRAME_SIZE, 1 << 24)]), ConnectionError(&[PROTOCOL_ERROR])),
        Case::new("6.5.2", "unknown setting", |port| [settings(&[(UNKNOWN, 1)]), port.request(1)].concat(), Response(1)),
        Case::new(
            "6.5.3",
            "the last value of a setting applies",
            |port| [settings(&[(INITIAL_WINDOW_SIZE, 0), (INITIAL_WINDOW_SIZE, 65_535)]), port.request(1)].concat(),
            Response(1),
        ),
        Case::new("6.5.3", "SETTINGS without a setting", |_| settings(&[]), Ignored),
        Case::new(
            "6.5.2",
            "header table without entries",
            |port| [settings(&[(HEADER_TABLE_SIZE, 0)]), port.request(1)].concat(),
            Response(1),
        ),
    ]
}
