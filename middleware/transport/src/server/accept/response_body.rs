//! Response body split into chunks, with the count of the bytes that wait for the reader.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    connection_state::RequestGuard,
    flow_control_timeout::{self, BodyState},
    waiting_bytes::Pressure,
};

/// Maximum size of a chunk. hyper copies a chunk that exceeds the window to the stream's buffer,
/// one chunk at most. Also the amount that a peer must read within the flow-control timeout.
const CHUNK_BYTES: usize = 32 * 1024;

pin_project! {
    /// Splits a body into chunks. Keeps its request in flight until it is dropped.
    #[derive(Debug)]
    pub(super) struct ResponseBody<B> {
        #[pin]
        body: B,
        // Read from the body, but not returned yet.
        remainder: Bytes,
        // Counted as waiting, with the chunk that was returned last.
        waiting: usize,
        counted: bool,
        request: RequestGuard,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            let connection = &this.request.connection().waiting;
            connection.subtract(*this.waiting);
            if *this.counted {
                connection.end_response();
            }
        }
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, request: RequestGuard) -> Self {
        Self { body, remainder: Bytes::new(), waiting: 0, counted: false, request }
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let connection = this.request.connection();
        // The chunk returned before was handed on.
        let sent = *this.waiting - this.remainder.len();
        if sent > 0 {
            connection.waiting.subtract(sent);
            *this.waiting -= sent;
        }
        if this.remainder.is_empty() {
            flow_control_timeout::set_body_state(BodyState::Pending);
            let frame = match ready!(this.body.poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                end => return Poll::Ready(end),
            };
            match frame.into_data() {
                Ok(data) => *this.remainder = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
            if !std::mem::replace(this.counted, true) {
                connection.waiting.start_response();
            }
            *this.waiting = this.remainder.len();
            let pressure = connection.waiting.add(*this.waiting);
            if pressure != Pressure::Low || *this.waiting > CHUNK_BYTES {
                // Watches the reader.
                connection.wake();
            }
        }
        flow_control_timeout::set_body_state(BodyState::ChunkReturned);
        let chunk = this.remainder.split_to(this.remainder.len().min(CHUNK_BYTES));
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.remainder.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.remainder.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};

    use super::*;
    use crate::server::accept::{
        connection_state::{ConnectionState, PortClock},
        waiting_bytes::{Bounds, Total, WaitingBytes},
    };

    fn connection(bounds: Bounds) -> (Arc<ConnectionState>, Total) {
        let port = Total::default();
        let waiting = WaitingBytes::new(bounds, port.clone(), None);
        (ConnectionState::new(PortClock::new(), waiting, Arc::default()), port)
    }

    const UNBOUNDED: Bounds = Bounds { port: 0, address: 0, connection: 0 };

    #[tokio::test]
    async fn chunked_body_preserves_content() {
        let (connection, _) = connection(UNBOUNDED);
        let expected = Bytes::from(vec![7; 2 * CHUNK_BYTES + 1]);
        let mut body = ResponseBody::new(Full::new(expected.clone()), connection.start_request(true));
        let mut received = Vec::new();
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((expected.len() - received.len()) as u64));
            let chunk = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(!chunk.is_empty() && chunk.len() <= CHUNK_BYTES);
            received.extend_from_slice(&chunk);
        }
        assert_eq!(received, expected);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn waiting_bytes_are_counted_until_sent_or_dropped() {
        let (connection, port) = connection(Bounds { port: 4 * CHUNK_BYTES, ..UNBOUNDED });
        let open = || ResponseBody::new(Full::new(Bytes::from(vec![7; 2 * CHUNK_BYTES])), connection.start_request(true));
        let (mut first, mut second) = (open(), open());
        assert_eq!(port.get(), 0, "the content of an unread body is not in memory yet");
        first.frame().await.unwrap().unwrap();
        assert_eq!(port.get(), 2 * CHUNK_BYTES);
        first.frame().await.unwrap().unwrap();
        assert_eq!(port.get(), CHUNK_BYTES);
        second.frame().await.unwrap().unwrap();
        assert_eq!(port.get(), 3 * CHUNK_BYTES);
        assert!(first.frame().await.is_none());
        assert_eq!(port.get(), 2 * CHUNK_BYTES);
        assert_eq!(connection.waiting.pressure(), Pressure::Low);
        let (mut third, mut fourth) = (open(), open());
        third.frame().await.unwrap().unwrap();
        assert_eq!(connection.waiting.pressure(), Pressure::High);
        fourth.frame().await.unwrap().unwrap();
        assert_eq!(connection.waiting.pressure(), Pressure::Exceeded);
        drop((first, second, third, fourth));
        assert_eq!(port.get(), 0);
    }
}
