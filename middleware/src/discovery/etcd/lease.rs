//! One entry in etcd under a lease: kept while it is kept alive, made again when it was lost, gone when it is revoked.

use std::time::Duration;

use futures_util::{Stream, stream};
use palisade_proto::etcd::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient,
};

use super::{super::upstream::EtcdPrefix, Cluster, EtcdError, unary, with_timeout};
use crate::jitter::RandomFn;

/// An entry to be kept.
#[derive(Debug)]
pub(in super::super) struct LeasedKey {
    cluster: Cluster,
    key: String,
    value: String,
    lease_seconds: i64,
    /// The lease that is to be revoked when we leave.
    lease: Option<i64>,
}

impl LeasedKey {
    /// The entry `name` with `value` at `place`; it goes after `lease_seconds` without a word of ours.
    pub(in super::super) fn new(location: EtcdPrefix, name: &str, value: &str, lease_seconds: i64, random: RandomFn) -> Self {
        let key = format!("{}{name}", location.prefix);
        Self { cluster: Cluster::new(location, random), key, value: value.to_owned(), lease_seconds, lease: None }
    }

    /// Makes the entry and keeps it until that fails; `made` is called when it is there.
    pub(in super::super) async fn maintain(&mut self, on_created: impl Fn()) -> EtcdError {
        let Err(error) = self.session(on_created).await;
        error
    }

    /// How long to wait after [`Self::keep`].
    pub(in super::super) fn next_backoff(&mut self) -> Duration {
        self.cluster.next_backoff()
    }

    /// Takes the entry away, if there may be one.
    pub(in super::super) async fn revoke(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let channel = self.cluster.connect();
        unary(LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id: lease })).await.map(drop)
    }

    async fn session(&mut self, on_created: impl Fn()) -> Result<std::convert::Infallible, EtcdError> {
        let channel = self.cluster.connect();
        let (mut leases, mut kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel));
        let granted = unary(leases.lease_grant(LeaseGrantRequest { ttl: self.lease_seconds })).await?;
        // An entry of an older lease is taken over: that lease then ends without it.
        self.lease = Some(granted.id);
        let put = PutRequest { key: self.key.clone().into(), value: self.value.clone().into(), lease: granted.id };
        unary(kv.put(put)).await?;
        self.cluster.reset_backoff();
        on_created();
        // etcd may grant more than was asked for.
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0).max(1));
        let mut keep_alives = unary(leases.lease_keep_alive(keep_alive_requests(granted.id, ttl / 3))).await?;
        loop {
            let response = with_timeout(ttl, keep_alives.message()).await?.map_err(EtcdError::Rejected)?;
            match response {
                None => return Err(EtcdError::StreamEnded("no reason given".to_owned())),
                Some(response) if response.ttl <= 0 => {
                    self.lease = None;
                    return Err(EtcdError::LeaseExpired);
                }
                Some(_) => {}
            }
        }
    }
}

/// "Still here", again and again.
fn keep_alive_requests(id: i64, interval: Duration) -> impl Stream<Item = LeaseKeepAliveRequest> + Send + 'static {
    stream::unfold(true, move |first| async move {
        if !first {
            tokio::time::sleep(interval).await;
        }
        Some((LeaseKeepAliveRequest { id }, false))
    })
}
