//! What changed is news, whatever changed it, until others were told of the latest version.

use std::time::Duration;

use palisade_products::store::{News, Removed};
use uuid::Uuid;

use crate::fixtures::{Fresh, HOLD, LATER, START, draft, lines};

async fn news(fresh: &Fresh) -> Vec<(Uuid, i64)> {
    fresh.store.news(100).await.unwrap().iter().map(|news| (news.product_id, news.version)).collect()
}

async fn tell(fresh: &Fresh) {
    let all = fresh.store.news(100).await.unwrap();
    fresh.store.told(&all).await.unwrap();
    assert_eq!(news(fresh).await, []);
}

pub(crate) async fn every_change_is_news_until_it_is_told(fresh: Fresh) {
    let (store, id) = (fresh.store.clone(), fresh.add_some("lamp", 5).await);
    assert_eq!(news(&fresh).await, [(id, 1)]);
    tell(&fresh).await;

    store.update(id, draft("lamp", 7), None, LATER).await.unwrap();
    let first = store.news(100).await.unwrap();
    store.update(id, draft("lamp", 8), None, LATER + HOLD).await.unwrap();
    // Of the older version only: the newer one stays, and has been waiting since the first.
    store.told(&first).await.unwrap();
    let left = store.news(100).await.unwrap();
    assert_eq!(left, [News { product_id: id, version: 3, since: first[0].since }]);
    tell(&fresh).await;

    // Stock moves as reservations come and go.
    let reservation = Uuid::now_v7();
    store.reserve(reservation, lines(&[(id, 2)]), START, HOLD).await.unwrap();
    assert_eq!(news(&fresh).await, [(id, 4)]);
    tell(&fresh).await;
    store.release(reservation, START).await.unwrap();
    assert_eq!(news(&fresh).await, [(id, 5)]);
    tell(&fresh).await;

    assert_eq!(store.remove(id, Some(1), LATER).await.unwrap(), Removed::VersionMismatch);
    assert_eq!(news(&fresh).await, []);
    assert_eq!(store.remove(id, None, LATER).await.unwrap(), Removed::Removed);
    assert_eq!(news(&fresh).await, [(id, News::REMOVED)]);
    tell(&fresh).await;
}

pub(crate) async fn one_relay_has_the_lease(fresh: Fresh) {
    let (first, second, lease) = (Uuid::new_v4(), Uuid::new_v4(), Duration::from_secs(10));
    let lease_at = async |relay, now| fresh.store.lease_relay(relay, now, now + lease).await.unwrap();
    assert!(lease_at(first, START).await);
    assert!(!lease_at(second, START + lease / 2).await);
    assert!(lease_at(first, START + lease / 2).await, "it goes on");
    assert!(!lease_at(second, START + lease).await);
    assert!(lease_at(second, START + 2 * lease).await, "it is over");
    assert!(!lease_at(first, START + 2 * lease).await);
}
