//! A stack under test: how to build a client and a server with a policy.

mod palisade;
mod published;
mod tonic_alone;

use std::{fmt, sync::Arc, time::Duration};

use axum::Router;
use futures_util::future::BoxFuture;
use http::{Request, Response, uri::PathAndQuery};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower::util::BoxCloneSyncService;

use crate::{
    format::{ClientPolicy, Method, Need, ServerPolicy},
    network::Listener,
};

pub use palisade::{Defect, Palisade};
pub use published::Published;
pub use tonic_alone::TonicAlone;

/// Implementation of the techniques that the scenarios test.
pub trait Stack: Sync {
    /// Name in the table.
    fn name(&self) -> &'static str;

    /// Whether the stack has a technique. Scenarios that need another one are not run.
    fn provides(&self, need: Need) -> bool;

    /// Whether the stack reads a clock of its own, so that its scenarios run in real time.
    fn has_own_clock(&self) -> bool {
        false
    }

    /// Whether the stack has the metrics of this project.
    fn has_our_metrics(&self) -> bool {
        false
    }

    /// Builds a client for these URLs, within the runtime of a scenario.
    ///
    /// # Errors
    ///
    /// If the stack rejects the policy.
    fn client(&self, urls: &[String], policy: &ClientPolicy) -> anyhow::Result<Client>;

    /// Serves `handler` until `shutdown` and the end of the drain.
    ///
    /// # Errors
    ///
    /// If the stack rejects the policy.
    fn serve(
        &self,
        listener: Listener,
        policy: &ServerPolicy,
        handler: Router,
        shutdown: CancellationToken,
    ) -> anyhow::Result<BoxFuture<'static, ()>>;
}

/// A client under test.
#[derive(Clone)]
pub struct Client {
    /// Makes the calls, for a generated tonic client.
    pub service: BoxCloneSyncService<Request<Body>, Response<Body>, Status>,
    /// Replaces the endpoints.
    pub set_endpoints: SetEndpoints,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Replaces the endpoints of a client by these URLs.
pub type SetEndpoints = Arc<dyn Fn(&[String]) + Send + Sync>;

/// Makes one call as a generated client does.
pub(crate) async fn call(client: &Client, method: Method, deadline: Option<Duration>) -> Result<(), Status> {
    let mut grpc = Grpc::new(client.service.clone());
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let mut request = tonic::Request::new(());
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    let path = PathAndQuery::from_static(method.path());
    grpc.unary(request, path, ProstCodec::<(), ()>::default()).await.map(drop)
}
