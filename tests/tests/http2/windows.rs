//! Frames of the server that depend on the client's: its first frame, acknowledgements, and DATA
//! within the windows (RFC 9113 §3.4, §6.5.3, §6.7, §6.9).

use crate::{
    connection::Connection,
    frames::{ACK, DATA, Frame, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, frame, ping, settings, window_update},
    port::Port,
};

const INITIAL_WINDOW_SIZE: u16 = 4;

/// Bytes of DATA on stream 1.
fn data_bytes(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.kind == DATA && frame.stream == 1).map(|frame| frame.payload.len()).sum()
}

pub(crate) async fn preface_starts_with_settings(port: &Port) {
    let mut connection = Connection::open(port).await;
    connection.send(&[PREFACE, &settings(&[])].concat()).await;
    let first = connection.next().await.expect("a frame");
    assert_eq!((first.kind, first.flags & ACK, first.stream), (SETTINGS, 0, 0), "{}: {first:?}", port.name);
}

pub(crate) async fn ping_is_echoed_with_its_payload(port: &Port) {
    let mut connection = Connection::ready(port, &[]).await;
    // Flags without a meaning are not echoed.
    connection.send(&[ping(*b"payload1"), frame(PING, 0xfe, 0, b"payload2")].concat()).await;
    for payload in [b"payload1", b"payload2"] {
        let echo = connection.until(|frame| frame.kind == PING).await.expect("an acknowledgement");
        assert_eq!((echo.flags, echo.payload.as_slice()), (ACK, payload.as_slice()), "{}", port.name);
    }
}

pub(crate) async fn each_settings_frame_is_acknowledged(port: &Port) {
    let mut connection = Connection::ready(port, &[]).await;
    for _ in 0..3 {
        connection.send(&settings(&[(INITIAL_WINDOW_SIZE, 100)])).await;
        let acknowledged = connection.until(|frame| frame.acknowledges(SETTINGS)).await.expect("an acknowledgement");
        assert!(acknowledged.payload.is_empty(), "{}", port.name);
    }
}

/// A window of one byte is used up, and opened again byte by byte.
pub(crate) async fn data_stays_within_the_stream_window(port: &Port) {
    let mut connection = Connection::ready(port, &[(INITIAL_WINDOW_SIZE, 1)]).await;
    connection.send(&port.request_with_response_body(1)).await;
    for sent in 1..=4 {
        let data = connection.until(|frame| frame.kind == DATA || frame.kind == RST_STREAM).await.expect("DATA");
        assert_eq!((data.kind, data.payload.len()), (DATA, 1), "{}", port.name);
        assert_eq!(data_bytes(connection.received()), sent, "{}", port.name);
        connection.send(&window_update(1, 1)).await;
    }
    connection.send(&window_update(1, 1_000)).await;
    assert!(connection.until(|frame| frame.ends(1)).await.is_some(), "{}", port.name);
}

/// A smaller initial window makes the window of an open stream negative: no DATA before it is
/// positive again.
pub(crate) async fn window_may_become_negative(port: &Port) {
    let mut connection = Connection::ready(port, &[(INITIAL_WINDOW_SIZE, 3)]).await;
    connection.send(&port.request_with_response_body(1)).await;
    while data_bytes(connection.received()) < 3 {
        connection.next().await.expect("three bytes of DATA");
    }
    // 3 - 3 sent = 0, which becomes -2, then 0, then 1.
    connection.send(&[settings(&[(INITIAL_WINDOW_SIZE, 1)]), window_update(1, 2), ping(*b"negative")].concat()).await;
    connection.until(|frame| frame.acknowledges(PING)).await.expect("an acknowledgement");
    assert_eq!(data_bytes(connection.received()), 3, "{}", port.name);
    connection.send(&window_update(1, 1)).await;
    let next = connection.until(|frame| frame.kind == DATA).await.expect("DATA");
    assert_eq!(next.payload.len(), 1, "{}", port.name);
}

/// HEADERS need no window.
pub(crate) async fn headers_ignore_a_closed_window(port: &Port) {
    let mut connection = Connection::ready(port, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    connection.send(&port.request_with_response_body(1)).await;
    connection.until(|frame| frame.kind == HEADERS).await.expect("HEADERS");
    connection.send(&ping(*b"no data!")).await;
    connection.until(|frame| frame.acknowledges(PING)).await.expect("an acknowledgement");
    assert_eq!(data_bytes(connection.received()), 0, "{}", port.name);
    connection.send(&settings(&[(INITIAL_WINDOW_SIZE, 1_000)])).await;
    assert!(connection.until(|frame| frame.ends(1)).await.is_some(), "{}", port.name);
}
