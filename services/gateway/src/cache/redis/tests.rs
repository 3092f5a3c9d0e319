//! Second-level cache against a real Redis.

use palisade_tests::servers::Redis;

use super::*;

const ID: Uuid = Uuid::from_u128(7);
const BODY: &[u8] = b"{\"a\":\n1}";

/// Second-level cache of one replica.
fn replica(redis: &Redis) -> (Arc<RedisCache>, InvalidationQueue) {
    // Generous timeout for a busy machine.
    let config = Config { ttl_ms: 60_000, redis_url: Some(redis.url().into()), redis_timeout_ms: 10_000, ..Config::default() };
    RedisCache::new(config.redis().unwrap().unwrap(), &config)
}

/// Writes all queued invalidations to Redis.
async fn drain_queue((replica, mut queue): (Arc<RedisCache>, InvalidationQueue)) {
    let mut redis = Arc::try_unwrap(replica).unwrap();
    // Dropping the only sender ends the writer.
    redis.invalidations = mpsc::channel(1).0;
    redis.run_writer(&mut queue).await;
}

async fn version(replica: &RedisCache) -> Option<i64> {
    replica.get(ID).await.map(|entry| entry.version)
}

#[test]
fn value_age_is_lifetime_minus_remaining_ttl() {
    let entry = decode(b"7 5000\n{\n}".to_vec(), 3_800);
    assert_eq!(entry, Some(RedisEntry { version: 7, body: Bytes::from_static(b"{\n}"), age: Duration::from_millis(1_200) }));
}

#[test]
fn marker_or_malformed_value_is_a_miss() {
    let values = [("7 0\n", 3_800), ("7 5000\n{}", -1), ("7 5000\n{}", -2), ("7 10\n{}", 3_800), ("{}", 1), ("x 5\n{}", 1), ("", 1)];
    for (value, ttl_ms) in values {
        assert_eq!(decode(value.as_bytes().to_vec(), ttl_ms), None, "{value}");
    }
}

#[tokio::test]
async fn set_never_overwrites_a_newer_version() {
    let redis = Redis::start();
    let ((fast, _), (slow, _)) = (replica(&redis), replica(&redis));
    fast.set(ID, 9, b"new").await;
    slow.set(ID, 8, b"old").await;
    let entry = slow.get(ID).await.unwrap();
    assert_eq!((entry.version, entry.body.as_ref()), (9, b"new".as_slice()));
    assert!(entry.age < Duration::from_mins(1));
    fast.set(ID, 10, BODY).await;
    assert_eq!(slow.get(ID).await.unwrap().body, BODY);
}

#[tokio::test]
async fn invalidation_blocks_older_versions_in_all_replicas() {
    let redis = Redis::start();
    let ((writer, queue), (reader, _)) = (replica(&redis), replica(&redis));
    reader.set(ID, 1, BODY).await;
    writer.invalidate(ID, Version::Known(2));
    assert_eq!(version(&writer).await, None, "this process rejects older values at once");
    drain_queue((writer, queue)).await;
    assert_eq!(version(&reader).await, None);
    reader.set(ID, 1, BODY).await;
    assert_eq!(version(&reader).await, None);
    reader.set(ID, 2, BODY).await;
    assert_eq!(version(&reader).await, Some(2));
}

#[tokio::test]
async fn reordered_event_does_not_lower_min_version() {
    let redis = Redis::start();
    let ((writer, queue), (reader, _)) = (replica(&redis), replica(&redis));
    reader.set(ID, 7, BODY).await;
    for version in [8, 7] {
        writer.invalidate(ID, Version::Known(version));
    }
    assert_eq!(version(&writer).await, None, "not yet written to redis");
    drain_queue((writer, queue)).await;
    assert_eq!(version(&reader).await, None);
}

#[tokio::test]
async fn invalidation_does_not_replace_current_value() {
    let redis = Redis::start();
    let ((writer, queue), (reader, _)) = (replica(&redis), replica(&redis));
    reader.set(ID, 5, BODY).await;
    writer.invalidate(ID, Version::Known(5));
    drain_queue((writer, queue)).await;
    assert_eq!(version(&reader).await, Some(5));
}

#[tokio::test]
async fn unknown_change_deletes_and_removal_is_final() {
    let redis = Redis::start();
    for (change, can_be_set_again) in [(Version::Unknown, true), (Version::Removed, false)] {
        let ((writer, queue), (reader, _)) = (replica(&redis), replica(&redis));
        reader.set(ID, 1, BODY).await;
        writer.invalidate(ID, change);
        drain_queue((writer, queue)).await;
        assert_eq!(version(&reader).await, None);
        reader.set(ID, 1, BODY).await;
        assert_eq!(version(&reader).await.is_some(), can_be_set_again, "{change:?}");
    }
}

#[tokio::test]
async fn invalidate_all_rejects_stored_values() {
    let redis = Redis::start();
    let (replica, _queue) = replica(&redis);
    replica.set(ID, 1, BODY).await;
    assert_eq!(version(&replica).await, Some(1));
    replica.invalidate_all();
    assert_eq!(version(&replica).await, None);
}

#[tokio::test]
async fn unavailable_redis_is_a_miss() {
    let mut redis = Redis::start();
    let config = Config { ttl_ms: 60_000, redis_url: Some(redis.url().into()), redis_timeout_ms: 50, ..Config::default() };
    let (replica, _queue) = RedisCache::new(config.redis().unwrap().unwrap(), &config);
    redis.pause();
    assert_eq!(version(&replica).await, None);
    redis.kill();
    replica.set(ID, 1, BODY).await;
    assert_eq!(version(&replica).await, None);
    assert!(replica.ping().await.is_err());
}
