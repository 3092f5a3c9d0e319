//! Header compression: RFC 7541.

use crate::{
    case::{
        Case,
        Expected::{ConnectionError, Response},
    },
    frames::{COMPRESSION_ERROR, END_HEADERS, END_STREAM, HEADERS, frame, text},
    port::Port,
};

/// Size of the dynamic table, as an integer with a prefix of 5 bits: 0, 4096 (the default), 4097.
const RESIZE_TO_0: [u8; 1] = [0x20];
const RESIZE_TO_4096: [u8; 3] = [0x3f, 0xe1, 0x1f];
const RESIZE_TO_4097: [u8; 3] = [0x3f, 0xe2, 0x1f];
/// First entry of the dynamic table, as an indexed field.
const FIRST_DYNAMIC: u8 = 0x80 | 0x3e;

const INVALID: crate::case::Expected = ConnectionError(&[COMPRESSION_ERROR]);

/// HEADERS whose block ends with these bytes.
fn ending(port: &Port, end: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&port.block(), end].concat())
}

/// `x-test` with a value in Huffman codes: its length bit is set.
fn huffman(value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("a short value") | 0x80;
    [vec![0], text("x-test"), vec![length], value.to_vec()].concat()
}

/// `x-test: ok`, added to the dynamic table.
fn indexed() -> Vec<u8> {
    [vec![0x40], text("x-test"), text("ok")].concat()
}

/// Complete request whose block has `end` after the usual fields.
fn request(port: &Port, stream: u32, end: &[u8]) -> Vec<u8> {
    port.request_of(stream, &[&port.block(), end].concat())
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = invalid();
    cases.extend(valid());
    cases
}

fn invalid() -> Vec<Case> {
    vec![
        Case::new("7541 2.3.3", "index above both tables", |port| ending(port, &[0xc6]), INVALID),
        Case::new("7541 2.3.3", "name index above both tables", |port| ending(port, &[0x7e, 1, b'x']), INVALID),
        Case::new("7541 6.1", "index 0", |port| ending(port, &[0x80]), INVALID),
        Case::new("7541 4.2", "size update at the end of a block", |port| ending(port, &RESIZE_TO_0), INVALID),
        Case::new(
            "7541 6.3",
            "size update above the setting",
            |port| frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&RESIZE_TO_4097[..], &port.block()].concat()),
            INVALID,
        ),
        Case::new("7541 5.1", "integer of many bytes", |port| ending(port, &[&[0xff][..], &[0xff; 10], &[0x7f]].concat()), INVALID),
        Case::new("7541 5.1", "integer without end", |port| ending(port, &[0xff, 0x80]), INVALID),
        Case::new("7541 5.2", "string longer than its block", |port| ending(port, &[0, 6, b'x', b'-', b't']), INVALID),
        Case::new("7541 5.2", "Huffman padding of more than 7 bits", |port| ending(port, &huffman(&[0x64, 0x02, 0xff])), INVALID),
        Case::new("7541 5.2", "Huffman padding with zeros", |port| ending(port, &huffman(&[0x10])), INVALID),
        Case::new("7541 5.2", "Huffman code of EOS", |port| ending(port, &huffman(&[0xff, 0xff, 0xff, 0xfc])), INVALID),
        Case::new(
            "7541 4.4",
            "evicted entry",
            |port| {
                let evict = [&RESIZE_TO_0[..], &port.block(), &[FIRST_DYNAMIC]].concat();
                [request(port, 1, &indexed()), frame(HEADERS, END_HEADERS | END_STREAM, 3, &evict)].concat()
            },
            INVALID,
        ),
    ]
}

fn valid() -> Vec<Case> {
    vec![
        Case::new(
            "7541 6.2.1",
            "entry of the dynamic table",
            |port| [request(port, 1, &indexed()), request(port, 3, &[FIRST_DYNAMIC])].concat(),
            Response(3),
        ),
        Case::new(
            "7541 6.2.3",
            "literal that is never indexed",
            |port| request(port, 1, &[vec![0x10], text("x-test"), text("ok")].concat()),
            Response(1),
        ),
        Case::new("7541 5.2", "Huffman codes", |port| request(port, 1, &huffman(&[0x64, 0x02])), Response(1)),
        Case::new(
            "7541 4.2",
            "two size updates at the start of a block",
            |port| port.request_of(1, &[&RESIZE_TO_0[..], &RESIZE_TO_4096, &port.block()].concat()),
            Response(1),
        ),
        Case::new(
            "7541 4.4",
            "entry larger than the table",
            |port| {
                let large = [&RESIZE_TO_0[..], &port.block(), &indexed()].concat();
                [port.request_of(1, &large), port.request(3)].concat()
            },
            Response(3),
        ),
    ]
}
