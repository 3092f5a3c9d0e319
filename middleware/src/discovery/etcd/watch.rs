//! Those who have registered under one path, now and whenever that changes.
//!
//! A watch only tells that something changed; what there is now is read anew. That costs a read per change, and there is no state of our own
//! that could be wrong after a compaction, a restart of etcd or entries beyond the bound.

use std::time::Duration;

use futures_util::{Stream, stream};
use palisade_proto::etcd::{
    KeyValue, RangeRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, kv_client::KvClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{
    super::{found::Found, upstream::Place},
    Cluster, Lost, answer, in_time,
};
use crate::{client::address::Address, jitter::Draw};

/// How often etcd is asked for a sign of life.
const ASK_EVERY: Duration = Duration::from_secs(3);
/// Without a sign for so long it is gone, whatever TCP thinks.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// Entries that are read at once. What lies beyond is not even looked at, and there is a lower bound to come.
const MOST_ENTRIES: i64 = 4_096;
/// Bytes of an entry; no address is longer.
const MOST_BYTES: usize = 300;

/// Watches for ever.
pub(in super::super) async fn run(place: Place, mut found: Found, draw: Draw) {
    let mut cluster = Cluster::new(place, draw);
    loop {
        let Err(lost) = session(&mut cluster, &mut found).await;
        found.failed(&lost);
        let pause = cluster.pause();
        found.during(tokio::time::sleep(pause)).await;
    }
}

/// Reads and watches until one of both fails.
async fn session(cluster: &mut Cluster, found: &mut Found) -> Result<std::convert::Infallible, Lost> {
    let prefix = cluster.place.prefix.clone();
    let channel = cluster.connect();
    let revision = read(&channel, &prefix, found).await?;
    let mut request = Request::new(questions(&prefix, revision + 1));
    // A member that has lost the others ends the watch instead of falling silent (etcd, "Watch").
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    let mut watching = found.during(answer(WatchClient::new(channel.clone()).watch(request))).await?;
    loop {
        let told = found.during(in_time(SILENT_FOR, watching.message())).await?.map_err(Lost::Refused)?;
        let told = told.ok_or_else(|| Lost::Ended("no reason given".to_owned()))?;
        if told.canceled {
            return Err(Lost::Ended(told.cancel_reason));
        }
        cluster.answered();
        if told.events.is_empty() {
            found.confirmed();
        } else {
            read(&channel, &prefix, found).await?;
        }
    }
}

/// What is there now; its revision.
async fn read(channel: &Channel, prefix: &str, found: &mut Found) -> Result<i64, Lost> {
    let request = RangeRequest { key: prefix.into(), range_end: end_of(prefix), limit: MOST_ENTRIES };
    let range = found.during(answer(KvClient::new(channel.clone()).range(request))).await?;
    let entries = range.kvs.len();
    let addresses: Vec<_> = range.kvs.iter().filter_map(address).collect();
    let refused = entries - addresses.len();
    found.answered(addresses, refused);
    Ok(range.header.map_or(0, |header| header.revision))
}

fn address(entry: &KeyValue) -> Option<Address> {
    let text = (entry.value.len() <= MOST_BYTES).then(|| std::str::from_utf8(&entry.value).ok()).flatten()?;
    Address::parse(text).ok()
}

/// First what to watch, then again and again whether anybody is there.
fn questions(prefix: &str, start_revision: i64) -> impl Stream<Item = WatchRequest> + Send + 'static {
    let create = WatchCreateRequest { key: prefix.into(), range_end: end_of(prefix), start_revision };
    stream::unfold(Some(create), |create| async {
        let question = if let Some(create) = create {
            RequestUnion::CreateRequest(create)
        } else {
            tokio::time::sleep(ASK_EVERY).await;
            RequestUnion::ProgressRequest(WatchProgressRequest {})
        };
        Some((WatchRequest { request_union: Some(question) }, None))
    })
}

/// The first key behind all that begin with `prefix`, which ends with a slash.
fn end_of(prefix: &str) -> Vec<u8> {
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
    fn what_is_registered_is_not_believed() {
        let name = |value: &[u8]| address(&KeyValue { key: Vec::new(), value: value.to_vec() }).map(|address| address.name().to_owned());
        assert_eq!(name(b"http://10.0.0.1:5000").as_deref(), Some("10.0.0.1:5000"));
        let long = format!("http://{}:1", "a".repeat(MOST_BYTES));
        for bad in [&b""[..], b"10.0.0.1:5000", b"ftp://a:1", b"http://a:0", b"http://a:1,http://b:1", b"\xff\xfe", long.as_bytes()] {
            assert_eq!(name(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_path_covers_what_is_below_it_and_nothing_else() {
        let end = end_of("/palisade/products/");
        assert!(b"/palisade/products/z".as_slice() < end.as_slice() && end.as_slice() < b"/palisade/products2".as_slice());
    }
}
