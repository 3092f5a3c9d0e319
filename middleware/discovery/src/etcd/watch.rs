//! etcd watch: follows the services registered below one prefix.
//!
//! A watch event only triggers a new read of the whole prefix. That costs one read per change, but
//! there is no local state that could be wrong after a compaction, a restart of etcd or entries
//! above the limit.

use std::time::Duration;

use crate::proto::{
    KeyValue, RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, kv_client::KvClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use futures_util::{Stream, stream};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{
    super::{resolved_endpoints::ResolvedEndpoints, upstream::EtcdPrefix},
    Cluster, EtcdError, unary, with_timeout,
};
use palisade_resilience::jitter::RandomFn;
use palisade_transport::client::address::Address;

/// Interval of progress requests.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// Timeout without any message, after which the member counts as dead, whatever the state of TCP.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum entries per read. Further entries are ignored; the limit on endpoints is lower.
const MAX_ENTRIES: i64 = 4_096;
/// Maximum bytes of a value; no address is longer.
const MAX_VALUE_BYTES: usize = 300;

/// Watches forever.
pub(in super::super) async fn run(location: EtcdPrefix, mut endpoints: ResolvedEndpoints, random: RandomFn) {
    let mut cluster = Cluster::new(location, random);
    loop {
        let Err(error) = session(&mut cluster, &mut endpoints).await;
        endpoints.record_failure(&error);
        let backoff = cluster.next_backoff();
        endpoints.await_updating_age(tokio::time::sleep(backoff)).await;
    }
}

/// Reads and watches until either fails.
async fn session(cluster: &mut Cluster, endpoints: &mut ResolvedEndpoints) -> Result<std::convert::Infallible, EtcdError> {
    let prefix = cluster.location.prefix.clone();
    let channel = cluster.connect();
    let revision = read(&channel, &prefix, endpoints).await?;
    let mut request = Request::new(watch_requests(&prefix, revision + 1));
    // A member without quorum ends the watch instead of falling silent (etcd, "Watch").
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut watch = endpoints.await_updating_age(unary(WatchClient::new(channel.clone()).watch(request))).await?;
    loop {
        let response = endpoints.await_updating_age(with_timeout(SILENCE_TIMEOUT, watch.message())).await?.map_err(EtcdError::Rejected)?;
        let response = response.ok_or_else(|| EtcdError::StreamEnded("no reason in the response".to_owned()))?;
        if response.canceled {
            return Err(EtcdError::StreamEnded(response.cancel_reason));
        }
        cluster.reset_backoff();
        if response.events.is_empty() {
            endpoints.record_confirmation();
        } else {
            read(&channel, &prefix, endpoints).await?;
        }
    }
}

/// Reads all entries and returns their revision.
async fn read(channel: &Channel, prefix: &str, endpoints: &mut ResolvedEndpoints) -> Result<i64, EtcdError> {
    let request = RangeRequest { key: prefix.into(), range_end: prefix_range_end(prefix), limit: MAX_ENTRIES };
    let range = endpoints.await_updating_age(unary(KvClient::new(channel.clone()).range(request))).await?;
    let entries = range.kvs.len();
    let addresses: Vec<_> = range.kvs.iter().filter_map(parse_address).collect();
    let invalid = entries - addresses.len();
    endpoints.apply(addresses, invalid);
    Ok(range.header.map_or(0, |header| header.revision))
}

fn parse_address(entry: &KeyValue) -> Option<Address> {
    let text = (entry.value.len() <= MAX_VALUE_BYTES).then(|| std::str::from_utf8(&entry.value).ok()).flatten()?;
    Address::parse(text).ok()
}

/// Stream of requests: creates the watch, then asks for progress periodically.
fn watch_requests(prefix: &str, start_revision: i64) -> impl Stream<Item = WatchRequest> + Send + 'static {
    let create = WatchCreateRequest { key: prefix.into(), range_end: prefix_range_end(prefix), start_revision };
    stream::unfold(Some(create), |create| async {
        let request = if let Some(create) = create {
            RequestUnion::CreateRequest(create)
        } else {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            RequestUnion::ProgressRequest(WatchProgressRequest {})
        };
        Some((WatchRequest { request_union: Some(request) }, None))
    })
}

/// Returns the first key after all keys with `prefix`, which ends with a slash.
fn prefix_range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_ignored() {
        let name =
            |value: &[u8]| parse_address(&KeyValue { key: Vec::new(), value: value.to_vec() }).map(|address| address.name().to_owned());
        assert_eq!(name(b"http://10.0.0.1:5000").as_deref(), Some("10.0.0.1:5000"));
        let long = format!("http://{}:1", "a".repeat(MAX_VALUE_BYTES));
        for bad in [&b""[..], b"10.0.0.1:5000", b"ftp://a:1", b"http://a:0", b"http://a:1,http://b:1", b"\xff\xfe", long.as_bytes()] {
            assert_eq!(name(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn range_end_covers_exactly_the_prefix() {
        let end = prefix_range_end("/palisade/products/");
        assert!(b"/palisade/products/z".as_slice() < end.as_slice() && end.as_slice() < b"/palisade/products2".as_slice());
    }
}
