//! Patches: some fields change, and sales do not fail an edit of the others.

use futures_util::future::join_all;
use palisade_middleware::preconditions::{Condition, VersionPreconditions};
use palisade_products::{
    product::{Filter, Input, Patch, Product, Query, Sort, ValidatedPatch, ValidatedProduct},
    store::UpdateOutcome,
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft, input};

fn patch(patch: Patch) -> ValidatedPatch {
    ValidatedPatch::new(patch, &[]).unwrap()
}

fn description(text: &str) -> ValidatedPatch {
    patch(Patch { description: Some(text.into()), ..Patch::default() })
}

fn quantity(units: i64) -> ValidatedPatch {
    patch(Patch { quantity: Some(units), ..Patch::default() })
}

fn if_match(versions: &[i64]) -> VersionPreconditions {
    VersionPreconditions { if_match: Some(Condition::Listed(versions.to_vec())), if_none_match: None }
}

impl TestStore {
    async fn patch(&self, id: Uuid, patch: ValidatedPatch, conditions: VersionPreconditions) -> UpdateOutcome {
        self.store.patch(id, patch, conditions, "dave".into(), LATER).await.unwrap()
    }

    /// Patches without conditions and returns the product.
    async fn patched(&self, id: Uuid, patch: ValidatedPatch) -> Product {
        match self.patch(id, patch, VersionPreconditions::default()).await {
            UpdateOutcome::Updated(product) => product,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) async fn patch_changes_only_its_fields(fixture: TestStore) {
    let created = fixture.add(draft("Lamp", 5), START).await;
    let id = created.id;
    assert_eq!(fixture.patched(id, patch(Patch::default())).await, created, "an empty patch changes nothing");
    assert_eq!(fixture.get(id).await, created);
    let mut expected = Product { version: 2, updated_at: LATER, name: "$name".into(), ..created };
    assert_eq!(fixture.patched(id, patch(Patch { name: Some("$name".into()), ..Patch::default() })).await, expected);
    let all = Patch { quantity: Some(9), ..Patch::all_of(&input("Lantern", 0)) };
    expected = Product { version: 3, name: "Lantern".into(), quantity: 9, ..expected };
    assert_eq!(fixture.patched(id, patch(all)).await, expected);
    let price = Patch { price_minor: Some(1), category: Some("garden".into()), is_active: Some(false), ..Patch::default() };
    expected = Product { version: 4, price_minor: 1, category: "garden".into(), is_active: false, ..expected };
    assert_eq!(fixture.patched(id, patch(price)).await, expected);
    assert_eq!(fixture.get(id).await, expected);
    fixture.assert_balanced().await;

    fixture.patched(id, description("Crème")).await;
    let filter = Filter { text: Some("CRÈME".into()), category: Some("garden".into()), ..Filter::default() };
    let found = fixture.store.list(Query::new(filter, Sort::Newest, 10, None).unwrap()).await.unwrap();
    assert_eq!(found.items.len(), 1, "search finds the new text");
    assert_eq!(fixture.patch(Uuid::now_v7(), description("x"), VersionPreconditions::default()).await, UpdateOutcome::NotFound);
}

pub(crate) async fn edits_do_not_fight_sales(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 10).await;
    let shown = fixture.get(product).await.version;
    fixture.hold(&[(product, 3)]).await;
    let sold = fixture.get(product).await;
    assert!(sold.version > shown);
    // The quantity would be overwritten.
    assert_eq!(fixture.patch(product, quantity(10), if_match(&[shown])).await, UpdateOutcome::VersionMismatch);
    let update = fixture.store.update(product, draft("Lamp", 10), if_match(&[shown]), "dave".into(), LATER).await.unwrap();
    assert_eq!(update, UpdateOutcome::VersionMismatch);
    // The description is not touched by a sale, and a sale is not touched by the description.
    assert!(matches!(fixture.patch(product, description("new"), if_match(&[shown])).await, UpdateOutcome::Updated(_)));
    let edited = fixture.get(product).await;
    assert_eq!((edited.description.as_str(), edited.quantity, edited.version), ("new", 7, sold.version + 1));
    // It has changed since then.
    assert_eq!(fixture.patch(product, description("other"), if_match(&[shown, sold.version])).await, UpdateOutcome::VersionMismatch);
    assert_eq!(fixture.patch(product, description("other"), if_match(&[edited.version + 1])).await, UpdateOutcome::VersionMismatch);
    let empty = patch(Patch::default());
    assert_eq!(fixture.patch(product, empty.clone(), if_match(&[shown])).await, UpdateOutcome::VersionMismatch);

    // Stock changes of any kind do not count, not even a replacement with the same texts.
    fixture.patched(product, quantity(20)).await;
    let same = Input { description: "new".into(), ..input("Lamp", 21) };
    let same = ValidatedProduct::new(same).unwrap();
    fixture.store.update(product, same, VersionPreconditions::default(), "dave".into(), LATER).await.unwrap();
    assert!(matches!(fixture.patch(product, empty, if_match(&[edited.version])).await, UpdateOutcome::Updated(_)));
    let not_current = VersionPreconditions {
        if_none_match: Some(Condition::Listed(vec![fixture.get(product).await.version])),
        ..if_match(&[edited.version])
    };
    assert_eq!(fixture.patch(product, description("x"), not_current).await, UpdateOutcome::VersionMismatch);
    assert!(matches!(fixture.patch(product, description("x"), if_match(&[1, edited.version])).await, UpdateOutcome::Updated(_)));
    assert_eq!(fixture.available(product).await, 21);
    fixture.assert_balanced().await;
}

pub(crate) async fn concurrent_edits_and_sales_lose_nothing(fixture: TestStore) {
    let product = fixture.add_some("Lamp", 30).await;
    let names = join_all((0..10).map(|n| {
        let name = Patch { name: Some(format!("Lamp {n}")), ..Patch::default() };
        fixture.patched(product, patch(name))
    }));
    let texts = join_all((0..10).map(|n| fixture.patched(product, description(&format!("text {n}")))));
    let line = [(product, 1)];
    let sales = join_all((0..10).map(|_| fixture.hold(&line)));
    tokio::join!(names, texts, sales);
    let product = fixture.get(product).await;
    assert_eq!(product.quantity, 20);
    assert!(product.version > 21, "sales may share a version");
    assert!(product.name.starts_with("Lamp ") && product.description.starts_with("text "));
    let filter = Filter { text: Some(product.description), ..Filter::default() };
    let found = fixture.store.list(Query::new(filter, Sort::Newest, 10, None).unwrap()).await.unwrap();
    assert_eq!(found.items.len(), 1, "the search data is that of both texts");
    fixture.assert_balanced().await;
}
