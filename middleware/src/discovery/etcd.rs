//! etcd's v3 API over tonic: the few calls that are needed, to one member of the cluster after the other.

pub(super) mod lease;
pub(super) mod watch;

use std::time::Duration;

use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::upstream::EtcdPrefix;
use crate::jitter::{self, RandomFn};

/// How long a single call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause after the first failure, twice as long each time.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Why etcd could not be asked, or is not asked any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum EtcdError {
    /// It refuses, or there is no connection.
    #[error("etcd answers {}: {}", crate::grpc_status::name(.0.code()), .0.message())]
    Rejected(#[source] Status),
    /// It says nothing.
    #[error("etcd is silent")]
    TimedOut,
    /// It has ended what was to go on for ever.
    #[error("etcd has ended the stream: {0}")]
    StreamEnded(String),
    /// The lease ran out meanwhile.
    #[error("the lease is gone")]
    LeaseExpired,
}

/// The members of one cluster.
#[derive(Debug)]
struct Cluster {
    location: EtcdPrefix,
    next: usize,
    failures: u32,
    random: RandomFn,
}

impl Cluster {
    fn new(location: EtcdPrefix, random: RandomFn) -> Self {
        Self { location, next: 0, failures: 0, random }
    }

    /// A channel to the next member. It connects when it is used.
    fn connect(&mut self) -> Channel {
        let member = &self.location.members[self.next % self.location.members.len()];
        self.next = self.next.wrapping_add(1);
        Endpoint::from(member.uri().clone()).connect_timeout(CALL_TIMEOUT).connect_lazy()
    }

    fn reset_backoff(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after a failure.
    fn next_backoff(&mut self) -> Duration {
        let backoff = INITIAL_BACKOFF.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_BACKOFF);
        self.failures = self.failures.saturating_add(1);
        jitter::jittered(backoff, 0.2, self.random)
    }
}

/// The answer of one call, if it comes in time.
async fn unary<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, EtcdError> {
    with_timeout(CALL_TIMEOUT, call).await?.map(Response::into_inner).map_err(EtcdError::Rejected)
}

async fn with_timeout<T>(limit: Duration, future: impl Future<Output = T>) -> Result<T, EtcdError> {
    tokio::time::timeout(limit, future).await.map_err(|_| EtcdError::TimedOut)
}
