//! What the tests of whole stacks ask of a refusal, and a way to get one.

use std::net::SocketAddr;

use palisade_middleware::{rejection::Retry, retry};
use tokio::net::TcpListener;
use tonic::Status;
use tonic_types::StatusExt;

/// A port where nobody listens.
pub(crate) async fn dead_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("an ErrorInfo").reason
}

pub(crate) fn advice(status: &Status) -> Retry {
    retry::advice(status.metadata().as_ref())
}
