//! etcd's v3 API over tonic: the few calls that are needed, to one member of the cluster after the other.

pub(super) mod lease;
pub(super) mod watch;

use std::time::Duration;

use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use super::upstream::Place;
use crate::jitter::{self, Draw};

/// How long a single call may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// The pause after the first failure, twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Why etcd could not be asked, or is not asked any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It refuses, or there is no connection.
    #[error("etcd answers {}: {}", crate::grpc_status::name(.0.code()), .0.message())]
    Refused(#[source] Status),
    /// It says nothing.
    #[error("etcd is silent")]
    Silent,
    /// It has ended what was to go on for ever.
    #[error("etcd has ended the stream: {0}")]
    Ended(String),
    /// The lease ran out meanwhile.
    #[error("the lease is gone")]
    LeaseGone,
}

/// The members of one cluster.
#[derive(Debug)]
struct Cluster {
    place: Place,
    next: usize,
    failures: u32,
    draw: Draw,
}

impl Cluster {
    fn new(place: Place, draw: Draw) -> Self {
        Self { place, next: 0, failures: 0, draw }
    }

    /// A channel to the next member. It connects when it is used.
    fn connect(&mut self) -> Channel {
        let member = &self.place.members[self.next % self.place.members.len()];
        self.next = self.next.wrapping_add(1);
        Endpoint::from(member.uri().clone()).connect_timeout(ANSWER_WITHIN).connect_lazy()
    }

    fn answered(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after a failure.
    fn pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures)).min(MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        jitter::around(pause, 0.2, self.draw)
    }
}

/// The answer of one call, if it comes in time.
async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Lost> {
    in_time(ANSWER_WITHIN, call).await?.map(Response::into_inner).map_err(Lost::Refused)
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Lost> {
    tokio::time::timeout(limit, work).await.map_err(|_| Lost::Silent)
}
