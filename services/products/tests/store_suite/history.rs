//! History of a product: who changed which of its catalogue fields, when, from what to what.

use futures_util::future::join_all;
use palisade_middleware::preconditions::{Condition, VersionPreconditions};
use palisade_products::{
    product::{Change, ChangedFields, Edit, Input, MAX_HISTORY, Patch, ValidatedPatch, ValidatedProduct},
    stock_ledger::Adjustment,
    store::{IdempotencyKey, RemoveOutcome, UpdateOutcome},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft, input};

fn edit<T>(from: Option<T>, to: T) -> Edit<T> {
    Edit { from, to }
}

fn renamed(from: &str, to: &str) -> ChangedFields {
    ChangedFields { name: Some(edit(Some(from.to_owned()), to.to_owned())), ..ChangedFields::default() }
}

fn change(version: i64, actor: &'static str, at: OffsetDateTime, fields: ChangedFields) -> Change {
    Change { version, fields, actor: Some(actor.into()), at }
}

/// Returns the creation of a product of the fixtures.
fn creation(name: &str) -> Change {
    let fields = ChangedFields {
        name: Some(edit(None, name.to_owned())),
        description: true,
        price_minor: Some(edit(None, 1999)),
        category: Some(edit(None, "home".to_owned())),
        is_active: Some(edit(None, true)),
    };
    change(1, "alice", START, fields)
}

fn name(name: &str) -> Patch {
    Patch { name: Some(name.into()), ..Patch::default() }
}

impl TestStore {
    pub(crate) async fn history(&self, product: Uuid) -> Vec<Change> {
        self.store.history(product).await.unwrap().expect("the product exists")
    }

    async fn update_by(&self, actor: &'static str, product: Uuid, input: Input) {
        let draft = ValidatedProduct::new(input).unwrap();
        let updated = self.store.update(product, draft, VersionPreconditions::default(), actor.into(), LATER).await.unwrap();
        assert!(matches!(updated, UpdateOutcome::Updated(_)), "{updated:?}");
    }

    async fn patch_by(&self, actor: &'static str, product: Uuid, patch: Patch) {
        let patch = ValidatedPatch::new(patch, &[]).unwrap();
        let patched = self.store.patch(product, patch, VersionPreconditions::default(), actor.into(), LATER).await.unwrap();
        assert!(matches!(patched, UpdateOutcome::Updated(_)), "{patched:?}");
    }
}

pub(crate) async fn every_change_of_a_catalogue_field_is_recorded(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 5).await;
    assert_eq!(fixture.history(product).await, [creation("Lamp")]);

    // Text is literal, and a description is only named.
    let all =
        Input { name: "$name".into(), description: "new".into(), price_minor: 0, quantity: 9, category: "$$ROOT".into(), is_active: false };
    fixture.update_by("bob", product, all.clone()).await;
    fixture.patch_by("carol", product, Patch { is_active: Some(true), price_minor: Some(0), ..name("Lantern") }).await;
    fixture.patch_by("dave", product, Patch { description: Some(String::new()), quantity: Some(3), ..Patch::default() }).await;
    let updated = ChangedFields {
        name: Some(edit(Some("Lamp".to_owned()), "$name".to_owned())),
        description: true,
        price_minor: Some(edit(Some(1999), 0)),
        category: Some(edit(Some("home".to_owned()), "$$ROOT".to_owned())),
        is_active: Some(edit(Some(true), false)),
    };
    let patched = ChangedFields { is_active: Some(edit(Some(false), true)), ..renamed("$name", "Lantern") };
    let described = ChangedFields { description: true, ..ChangedFields::default() };
    let expected =
        [change(4, "dave", LATER, described), change(3, "carol", LATER, patched), change(2, "bob", LATER, updated), creation("Lamp")];
    assert_eq!(fixture.history(product).await, expected);

    let plain = fixture.add(ValidatedProduct::new(Input { description: String::new(), ..input("Plain", 0) }).unwrap(), START).await;
    assert!(!fixture.history(plain.id).await[0].fields.description, "it has no description");
    assert_eq!(fixture.store.history(Uuid::now_v7()).await.unwrap(), None);
}

pub(crate) async fn other_writes_add_no_entry(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let only_creation = [creation("Lamp")];
    // No value changes, and only the quantity.
    fixture.update_by("bob", product, input("Lamp", 10)).await;
    fixture.update_by("bob", product, input("Lamp", 12)).await;
    fixture.patch_by("bob", product, Patch::default()).await;
    fixture.patch_by("bob", product, name("Lamp")).await;
    fixture.patch_by("bob", product, Patch { quantity: Some(20), ..Patch::default() }).await;
    assert_eq!(fixture.history(product).await, only_creation);

    // No precondition holds.
    let if_match = VersionPreconditions { if_match: Some(Condition::Listed(vec![1])), if_none_match: None };
    let update = fixture.store.update(product, draft("Chair", 1), if_match.clone(), "bob".into(), LATER).await.unwrap();
    assert_eq!(update, UpdateOutcome::VersionMismatch);
    fixture.patch_by("bob", product, name("Lantern")).await;
    let version = fixture.get(product).await.version;
    let patch = ValidatedPatch::new(name("Chair"), &[]).unwrap();
    let patched = fixture.store.patch(product, patch, if_match, "bob".into(), LATER).await.unwrap();
    assert_eq!(patched, UpdateOutcome::VersionMismatch);
    let expected = [change(version, "bob", LATER, renamed("Lamp", "Lantern")), creation("Lamp")];
    assert_eq!(fixture.history(product).await, expected);

    // Reservations, their ends and adjustments move units only.
    let [sold, released] = [fixture.hold(&[(product, 3)]).await, fixture.hold(&[(product, 1)]).await];
    fixture.store.release(released, LATER).await.unwrap();
    fixture.store.confirm(sold, START).await.unwrap();
    fixture.store.fulfil(sold, LATER).await.unwrap();
    fixture.store.adjust(Adjustment::new(product, -1, "damaged").unwrap(), None, "bob".into(), LATER).await.unwrap();
    assert!(fixture.get(product).await.version > version);
    assert_eq!(fixture.history(product).await, expected);
}

pub(crate) async fn concurrent_edits_form_a_chain(fixture: TestStore) {
    let product = fixture.add_some("Lamp 0", 50).await;
    let names: Vec<String> = (1..=20).map(|n| format!("Lamp {n}")).collect();
    let edits = join_all(names.iter().map(|new| fixture.patch_by("bob", product, name(new))));
    let line = [(product, 1)];
    let sales = join_all((0..10).map(|_| fixture.hold(&line)));
    tokio::join!(edits, sales);
    let mut history = fixture.history(product).await;
    history.reverse();
    assert!(history.is_sorted_by(|older, newer| older.version < newer.version), "{history:?}");
    let names: Vec<_> = history.iter().map(|change| change.fields.name.clone().unwrap()).collect();
    assert_eq!((names.len(), &names[0].from), (21, &None));
    for pair in names.windows(2) {
        assert_eq!(pair[1].from.as_ref(), Some(&pair[0].to));
    }
    assert_eq!(names[20].to, fixture.get(product).await.name);
}

pub(crate) async fn history_keeps_the_latest_changes(fixture: TestStore) {
    let (product, other) = (fixture.add_some("Lamp 1", 1).await, fixture.add_some("Other", 1).await);
    let last = i64::from(MAX_HISTORY) + 5;
    for version in 2..=last {
        fixture.patch_by("bob", product, name(&format!("Lamp {version}"))).await;
    }
    let history = fixture.history(product).await;
    let versions: Vec<_> = history.iter().map(|change| change.version).collect();
    assert_eq!(versions, (6..=last).rev().collect::<Vec<_>>());
    assert_eq!(history.last().unwrap().fields, renamed("Lamp 5", "Lamp 6"));
    assert_eq!(fixture.history(other).await, [creation("Other")]);
}

pub(crate) async fn history_ends_with_its_product(fixture: TestStore) {
    let product = Uuid::now_v7();
    let create = async |key: &str| {
        let key = IdempotencyKey { subject: "alice".into(), key: key.into(), fingerprint: [1; 32] };
        fixture.store.create(product, draft("Lamp", 1), Some(key), "alice".into(), START).await.unwrap();
    };
    create("first").await;
    fixture.patch_by("bob", product, name("Lantern")).await;
    let removed = fixture.store.remove(product, VersionPreconditions::default(), LATER).await.unwrap();
    assert_eq!((removed, fixture.store.history(product).await.unwrap()), (RemoveOutcome::Removed, None));
    // A product with the same id has a history of its own.
    create("second").await;
    assert_eq!(fixture.history(product).await, [creation("Lamp")]);
}
