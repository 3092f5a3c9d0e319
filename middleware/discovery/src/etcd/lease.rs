//! etcd lease: keeps one key alive, recreates it when it is lost, and revokes it on shutdown.

use std::time::Duration;

use crate::proto::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient,
};
use futures_util::{Stream, stream};

use super::{super::upstream::EtcdPrefix, Cluster, EtcdError, unary, with_timeout};
use palisade_resilience::jitter::RandomFn;

/// Key kept alive by a lease.
#[derive(Debug)]
pub(in super::super) struct LeasedKey {
    cluster: Cluster,
    key: String,
    value: String,
    lease_ttl_s: i64,
    /// Lease to revoke on shutdown.
    lease: Option<i64>,
}

impl LeasedKey {
    /// Creates the key `name` with `value` below `location`. It expires `lease_ttl_s` after the
    /// last keep-alive.
    pub(in super::super) fn new(location: EtcdPrefix, name: &str, value: &str, lease_ttl_s: i64, random: RandomFn) -> Self {
        let key = format!("{}{name}", location.prefix);
        Self { cluster: Cluster::new(location, random), key, value: value.to_owned(), lease_ttl_s, lease: None }
    }

    /// Creates the key and keeps it alive until a failure; calls `on_created` after the key is
    /// written.
    pub(in super::super) async fn maintain(&mut self, on_created: impl Fn()) -> EtcdError {
        let Err(error) = self.session(on_created).await;
        error
    }

    /// Returns the backoff after [`Self::maintain`] failed.
    pub(in super::super) fn next_backoff(&mut self) -> Duration {
        self.cluster.next_backoff()
    }

    /// Revokes the lease, if any.
    pub(in super::super) async fn revoke(&mut self) -> Result<(), EtcdError> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let channel = self.cluster.connect();
        unary(LeaseClient::new(channel).lease_revoke(LeaseRevokeRequest { id: lease })).await.map(drop)
    }

    async fn session(&mut self, on_created: impl Fn()) -> Result<std::convert::Infallible, EtcdError> {
        let channel = self.cluster.connect();
        let (mut leases, mut kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel));
        let granted = unary(leases.lease_grant(LeaseGrantRequest { ttl: self.lease_ttl_s })).await?;
        // Overwrites a key of an older lease, which then expires without it.
        self.lease = Some(granted.id);
        let put = PutRequest { key: self.key.clone().into(), value: self.value.clone().into(), lease: granted.id };
        unary(kv.put(put)).await?;
        self.cluster.reset_backoff();
        on_created();
        // etcd may grant a longer TTL than requested.
        let ttl = Duration::from_secs(u64::try_from(granted.ttl).unwrap_or(0).max(1));
        let mut keep_alives = unary(leases.lease_keep_alive(keep_alive_requests(granted.id, ttl / 3))).await?;
        loop {
            let response = with_timeout(ttl, keep_alives.message()).await?.map_err(EtcdError::Rejected)?;
            match response {
                None => return Err(EtcdError::StreamEnded("no reason in the response".to_owned())),
                Some(response) if response.ttl <= 0 => {
                    self.lease = None;
                    return Err(EtcdError::LeaseExpired);
                }
                Some(_) => {}
            }
        }
    }
}

/// Stream of keep-alive requests.
fn keep_alive_requests(id: i64, interval: Duration) -> impl Stream<Item = LeaseKeepAliveRequest> + Send + 'static {
    stream::unfold(true, move |first| async move {
        if !first {
            tokio::time::sleep(interval).await;
        }
        Some((LeaseKeepAliveRequest { id }, false))
    })
}
