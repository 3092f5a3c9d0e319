//! etcd v3 API client over tonic, limited to the required calls, with failover between cluster
//! members.

pub(super) mod lease;
pub(super) mod watch;

use std::time::Duration;

use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::upstream::EtcdPrefix;
use palisade_resilience::{
    backoff::Backoff,
    jitter::{self, RandomFn},
};

/// Timeout of a unary call.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Backoff after the first failure, doubled with each further one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Maximum backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Reason why an etcd session failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum EtcdError {
    /// Error status, or no connection.
    #[error("etcd returned {}: {}", palisade_resilience::grpc_status::name(.0.code()), .0.message())]
    Rejected(#[source] Status),
    /// No message in time.
    #[error("no message from etcd in time")]
    TimedOut,
    /// etcd ended a stream that should be endless.
    #[error("etcd ended the stream: {0}")]
    StreamEnded(String),
    /// The lease expired.
    #[error("lease expired")]
    LeaseExpired,
}

/// Members of one cluster.
#[derive(Debug)]
struct Cluster {
    location: EtcdPrefix,
    next: usize,
    backoff: Backoff,
    random: RandomFn,
}

impl Cluster {
    fn new(location: EtcdPrefix, random: RandomFn) -> Self {
        Self { location, next: 0, backoff: Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF), random }
    }

    /// Opens a lazy channel to the next member (round robin).
    fn connect(&mut self) -> Channel {
        let member = &self.location.members[self.next % self.location.members.len()];
        self.next = self.next.wrapping_add(1);
        Endpoint::from(member.uri().clone()).connect_timeout(CALL_TIMEOUT).connect_lazy()
    }

    fn reset_backoff(&mut self) {
        self.backoff.reset();
    }

    /// Returns the backoff after a failure.
    fn next_backoff(&mut self) -> Duration {
        jitter::jittered(self.backoff.next_wait(), 0.2, self.random)
    }
}

/// Awaits a unary call, with its timeout.
async fn unary<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, EtcdError> {
    with_timeout(CALL_TIMEOUT, call).await?.map(Response::into_inner).map_err(EtcdError::Rejected)
}

async fn with_timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, EtcdError> {
    tokio::time::timeout(limit, future).await.map_err(|_| EtcdError::TimedOut)
}
