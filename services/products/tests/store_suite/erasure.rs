//! Erasure: no key, no ledger entry and no history names the subject, and the products are
//! unchanged.

use palisade_middleware::preconditions::VersionPreconditions;
use palisade_products::{
    erasure::{self, Erased},
    product::Change,
    stock_ledger::{AdjustOutcome, Adjustment, LedgerQuery},
    store::IdempotencyKey,
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft};

const PSEUDONYM: &str = "erased:00112233445566778899aabbccddeeff";

impl TestStore {
    async fn authors(&self, product: Uuid) -> Vec<Option<String>> {
        let page = self.store.ledger(LedgerQuery::new(product, 10, None).unwrap()).await.unwrap().expect("the product exists");
        page.items.iter().map(|entry| entry.actor.as_ref().map(ToString::to_string)).collect()
    }

    async fn actors(&self, product: Uuid) -> Vec<Option<String>> {
        self.history(product).await.iter().map(|change| change.actor.as_ref().map(ToString::to_string)).collect()
    }

    async fn update_by_subject(&self, subject: &'static str, product: Uuid, name: &str) {
        self.store.update(product, draft(name, 9), VersionPreconditions::default(), subject.into(), LATER).await.unwrap();
    }

    async fn adjust_by(&self, subject: &'static str, product: Uuid) -> AdjustOutcome {
        let key = IdempotencyKey { subject: subject.into(), key: "key".into(), fingerprint: [1; 32] };
        self.store.adjust(Adjustment::new(product, 1, "counted").unwrap(), Some(key), subject.into(), LATER).await.unwrap()
    }
}

pub(crate) async fn subject_is_erased_everywhere(fixture: TestStore) {
    let (product, other) = (Uuid::now_v7(), fixture.add_some("Other", 5).await);
    let key = IdempotencyKey { subject: "alice".into(), key: "new".into(), fingerprint: [1; 32] };
    fixture.store.create(product, draft("Lamp", 3), Some(key), "alice".into(), START).await.unwrap();
    fixture.adjust_by("alice", product).await;
    fixture.adjust_by("bob", product).await;
    for (subject, name) in [("alice", "Lantern"), ("bob", "Lamp"), ("alice", "Lantern")] {
        fixture.update_by_subject(subject, product, name).await;
    }
    let named = |names: [&str; 4]| names.map(|name| Some(name.to_owned())).to_vec();
    let history = fixture.history(product).await;
    assert_eq!(fixture.actors(product).await, named(["alice", "bob", "alice", "alice"]));
    assert_eq!(fixture.authors(product).await, named(["alice", "bob", "alice", "alice"]));
    let before = (fixture.get(product).await, fixture.get(other).await);

    let erased = erasure::erase(&*fixture.store, &"alice".into(), &PSEUDONYM.into()).await.unwrap();
    assert_eq!(erased, Erased { keys: 2, entries: 4, history: 4 }, "three of one product, one of the other");
    assert_eq!(fixture.actors(product).await, named([PSEUDONYM, "bob", PSEUDONYM, PSEUDONYM]));
    assert_eq!(fixture.actors(other).await, [Some(PSEUDONYM.to_owned())]);
    let without_actor = |change: &Change| Change { actor: None, ..change.clone() };
    let erased = fixture.history(product).await;
    assert!(erased.iter().map(without_actor).eq(history.iter().map(without_actor)), "the rest of the history is unchanged");
    assert_eq!(fixture.authors(product).await, named([PSEUDONYM, "bob", PSEUDONYM, PSEUDONYM]));
    assert_eq!(fixture.authors(other).await, [Some(PSEUDONYM.to_owned())]);
    assert_eq!((fixture.get(product).await, fixture.get(other).await), before);
    let again = erasure::erase(&*fixture.store, &"alice".into(), &PSEUDONYM.into()).await.unwrap();
    assert_eq!(again, Erased::default(), "a repetition finds nothing");
    // The keys of others remain.
    assert!(matches!(fixture.adjust_by("bob", product).await, AdjustOutcome::Adjusted { replayed: true, .. }));
    fixture.assert_balanced().await;
}

pub(crate) async fn authors_are_erased_in_batches(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 5).await;
    for _ in 0..3 {
        let adjustment = Adjustment::new(product, 1, "counted").unwrap();
        fixture.store.adjust(adjustment, None, "carol".into(), LATER).await.unwrap();
    }
    let erase = async || fixture.store.erase_authors("carol".into(), PSEUDONYM.into(), 2).await.unwrap();
    assert_eq!([erase().await, erase().await, erase().await], [2, 1, 0]);
}

pub(crate) async fn actors_are_erased_in_batches(fixture: TestStore) {
    for _ in 0..3 {
        let product = fixture.add_some("Lamp", 9).await;
        fixture.update_by_subject("carol", product, "Lantern").await;
        fixture.update_by_subject("carol", product, "Lamp").await;
    }
    let erase = async || fixture.store.erase_actors("carol".into(), PSEUDONYM.into(), 2).await.unwrap();
    assert_eq!([erase().await, erase().await, erase().await], [4, 2, 0], "of two products at a time");
}
