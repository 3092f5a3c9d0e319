//! Mark of calls whose response is a stream.

use http::Request;

/// Marks a call, in its extensions, whose response is a stream by its contract.
#[derive(Debug, Clone, Copy)]
pub struct IsStreaming;

/// Returns whether the response to this call is a stream.
pub fn is_stream<B>(call: &Request<B>) -> bool {
    call.extensions().get::<IsStreaming>().is_some()
}
