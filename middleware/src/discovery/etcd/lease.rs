//! One entry in etcd under a lease: kept while it is kept alive, made again when it was lost, gone when it is revoked.

use std::time::Duration;

use futures_util::{Stream, stream};
use palisade_proto::etcd::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient,
};

use super::{super::upstream::Place, Cluster, Lost, answer, in_time};
use crate::jitter::Draw;

/// An entry to be kept.
#[derive(Debug)]
pub(in super::super) struct Entry {
    cluster: Cluster,
    key: String,
    value: String,
    lease_seconds: i64,
    /// The lease that is to be revoked when we leave.
    lease: Option<i64>,
}

impl Entry {
    /// The entry `name` with `value` at `place`; it goes after `lease_seconds` without a word of ours.
    pub(in super::super) fn new(place: Place, name: &str, value: &str, lease_seconds: i64, draw: Draw) -> Self {
        let key = format!("{}{name}", place.prefix);
        Self { cluster: Cluster::new(place, draw), key, value: value.to_owned(), lease_seconds, lease: None }
    }

    /// Makes the entry and keeps it until that fails; `made` is called when it is there.
    pub(in super::super) async fn keep(&mut self, made: impl Fn()) -> Lost {
        let Err(lost) = self.session(made).await;
        lost
    }

    /// How long to wait after [`Self::keep`].
    pub(in super::super) fn pause(&mut self) -> Duration {
        self.cluster.pause()
    }

    /// Takes the entry away, if there may be one.
    pub(in super::super) async fn leave(&mut self) -> Result<(), Lost> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let channel = self.cluster.connect();
        answer(LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id: lease })).await.map(drop)
    }

    async fn session(&mut self, made: impl Fn()) -> Result<std::convert::Infallible, Lost> {
        let channel = self.cluster.connect();
        let (mut leases, mut entries) = (LeaseClient::new(channel.clone()), KvClient::new(channel));
        let granted = answer(leases.lease_grant(LeaseGrantRequest { ttl: self.lease_seconds })).await?;
        // An entry of an older lease is taken over: that lease then ends without it.
        self.lease = Some(granted.id);
        let put = PutRequest { key: self.key.clone().into(), value: self.value.clone().into(), lease: granted.id };
        answer(entries.put(put)).await?;
        self.cluster.answered();
        made();
        // etcd may grant more than was asked for.
        let lasts = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0).max(1));
        let mut kept = answer(leases.lease_keep_alive(words(granted.id, lasts / 3))).await?;
        loop {
            let told = in_time(lasts, kept.message()).await?.map_err(Lost::Refused)?;
            match told {
                None => return Err(Lost::Ended("no reason given".to_owned())),
                Some(told) if told.ttl <= 0 => {
                    self.lease = None;
                    return Err(Lost::LeaseGone);
                }
                Some(_) => {}
            }
        }
    }
}

/// "Still here", again and again.
fn words(id: i64, every: Duration) -> impl Stream<Item = LeaseKeepAliveRequest> + Send + 'static {
    stream::unfold(true, move |first| async move {
        if !first {
            tokio::time::sleep(every).await;
        }
        Some((LeaseKeepAliveRequest { id }, false))
    })
}
