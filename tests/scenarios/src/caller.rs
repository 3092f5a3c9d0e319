//! Caller of a server under test: plain HTTP/2 without a gRPC library, whose own timeouts would
//! hide those of the server.

use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use http::{HeaderMap, Request};
use palisade_middleware::task;
use tokio::sync::Mutex;
use tonic::Status;

use crate::{
    format::CallGroup,
    network::{self, url},
};

/// A caller with an address and one connection of its own.
pub(crate) struct Caller {
    host: String,
    address: IpAddr,
    connection: Mutex<Option<SendRequest<Bytes>>>,
}

impl Caller {
    pub(crate) fn new(host: &str, number: u8) -> Self {
        Self { host: host.to_owned(), address: Ipv4Addr::new(10, 0, 0, number).into(), connection: Mutex::default() }
    }

    /// Makes one call and returns its status.
    pub(crate) async fn call(&self, group: &CallGroup) -> Result<(), Status> {
        let lost = |error: h2::Error| Status::unavailable(format!("connection lost: {error}"));
        let mut connection = self.connection().await?;
        let request = request(&url(&self.host), group).map_err(|error| Status::internal(error.to_string()))?;
        let (response, mut stream) = connection.send_request(request, false).map_err(lost)?;
        stream.send_data(Bytes::from_static(&[0; 5]), true).map_err(lost)?;
        let (head, mut body) = response.await.map_err(lost)?.into_parts();
        if head.headers.contains_key("grpc-status") {
            return status(&head.headers);
        }
        while let Some(data) = body.data().await {
            let length = data.map_err(lost)?.len();
            let _ = body.flow_control().release_capacity(length);
        }
        let trailers = body.trailers().await.map_err(lost)?;
        trailers.map_or_else(|| Err(Status::internal("response without a status")), |trailers| status(&trailers))
    }

    /// Returns the open connection, or opens another one.
    async fn connection(&self) -> Result<SendRequest<Bytes>, Status> {
        let mut current = self.connection.lock().await;
        if let Some(open) = current.clone()
            && let Ok(ready) = open.ready().await
        {
            return Ok(ready);
        }
        let refused = |error: String| Status::unavailable(format!("no connection: {error}"));
        let io = network::connect(&self.host, self.address).map_err(|error| refused(error.to_string()))?;
        let (sender, connection) = client::handshake(io).await.map_err(|error| refused(error.to_string()))?;
        drop(task::spawn(connection));
        let ready = sender.ready().await.map_err(|error| refused(error.to_string()))?;
        *current = Some(ready.clone());
        Ok(ready)
    }
}

fn request(url: &str, group: &CallGroup) -> Result<Request<()>, http::Error> {
    let mut request =
        Request::post(format!("{url}{}", group.method.path())).header("content-type", "application/grpc").header("te", "trailers");
    let timeout = group.grpc_timeout.clone().or_else(|| group.deadline_ms.map(|ms| format!("{ms}m")));
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    if let Some(attempts) = group.previous_attempts {
        request = request.header("grpc-previous-rpc-attempts", attempts);
    }
    request.body(())
}

fn status(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() == tonic::Code::Ok => Ok(()),
        Some(status) => Err(status),
        None => Err(Status::unknown("response without a status")),
    }
}
