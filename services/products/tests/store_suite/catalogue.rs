//! Catalogue: create, replace, remove, list.

use std::{collections::HashSet, time::Duration};

use palisade_products::{
    product::{Filter, Input, Product, Query, Sort, ValidatedProduct},
    store::{RemoveOutcome, UpdateOutcome},
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft, input};

pub(crate) async fn create_update_and_remove_are_persistent(fixture: TestStore) {
    let created = fixture.add(draft("Lamp", 3), START).await;
    assert_eq!((created.version, created.created_at, created.updated_at), (1, START, START));
    assert_eq!(fixture.get(created.id).await, created);

    let replacement =
        ValidatedProduct::new(Input { is_active: false, price_minor: 0, description: String::new(), ..input("Lantern", 9) }).unwrap();
    let updated = fixture.store.update(created.id, replacement.clone(), None, LATER).await.unwrap();
    let expected = Product { version: 2, created_at: START, ..replacement.into_product(created.id, LATER) };
    assert_eq!(updated, UpdateOutcome::Updated(expected.clone()));
    assert_eq!(fixture.get(created.id).await, expected);

    assert_eq!(fixture.store.remove(created.id, None, LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(fixture.store.find(created.id).await.unwrap(), None);
    assert_eq!(fixture.store.remove(created.id, None, LATER).await.unwrap(), RemoveOutcome::NotFound);
    assert_eq!(fixture.store.update(created.id, draft("Lamp", 3), None, LATER).await.unwrap(), UpdateOutcome::NotFound);
}

pub(crate) async fn expected_version_guards_update_and_remove(fixture: TestStore) {
    let id = fixture.add_some("Lamp", 3).await;
    assert_eq!(fixture.store.update(id, draft("Lantern", 3), Some(2), LATER).await.unwrap(), UpdateOutcome::VersionMismatch);
    assert!(matches!(fixture.store.update(id, draft("Lantern", 3), Some(1), LATER).await.unwrap(), UpdateOutcome::Updated(_)));
    assert_eq!(fixture.store.remove(id, Some(1), LATER).await.unwrap(), RemoveOutcome::VersionMismatch);
    assert_eq!(fixture.store.remove(id, Some(2), LATER).await.unwrap(), RemoveOutcome::Removed);
    let unknown = Uuid::now_v7();
    assert_eq!(fixture.store.update(unknown, draft("Lamp", 3), Some(1), LATER).await.unwrap(), UpdateOutcome::NotFound);
    assert_eq!(fixture.store.remove(unknown, Some(1), LATER).await.unwrap(), RemoveOutcome::NotFound);
}

pub(crate) async fn text_is_stored_literally(fixture: TestStore) {
    let special = Input {
        description: "$$ROOT\n{\"$gt\": \"\"}'; DROP TABLE products; --".into(),
        category: "$category".into(),
        ..input("$quantity", 7)
    };
    let id = fixture.add(ValidatedProduct::new(special.clone()).unwrap(), START).await.id;
    let replacement = Input { name: "$literal 🦀 e\u{301}".into(), ..special };
    fixture.store.update(id, ValidatedProduct::new(replacement.clone()).unwrap(), None, LATER).await.unwrap();
    let stored = fixture.get(id).await;
    assert_eq!((stored.name, stored.description, stored.category), (replacement.name, replacement.description, replacement.category));
}

pub(crate) async fn pages_are_stable_under_concurrent_inserts(fixture: TestStore) {
    for sort in [Sort::Newest, Sort::Oldest, Sort::PriceAsc, Sort::PriceDesc, Sort::NameAsc, Sort::NameDesc] {
        // Many ties, so that the id must break them.
        let mut before = HashSet::new();
        for n in 0..23 {
            before.insert(add_numbered(&fixture, n).await);
        }
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = fixture.store.list(Query::new(Filter::default(), sort, 5, after).unwrap()).await.unwrap();
            listed.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
            add_numbered(&fixture, i64::try_from(listed.len()).unwrap()).await;
        }
        let ids: Vec<_> = listed.iter().map(|product| product.id).collect();
        let distinct: HashSet<_> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), ids.len(), "{sort:?} repeats");
        assert!(before.is_subset(&distinct), "{sort:?} skips");
        let keys = |product: &Product| {
            let at = product.created_at;
            match sort {
                Sort::Newest | Sort::Oldest => (at.unix_timestamp(), String::new(), product.id),
                Sort::PriceAsc | Sort::PriceDesc => (product.price_minor, String::new(), product.id),
                Sort::NameAsc | Sort::NameDesc => (0, product.name.clone(), product.id),
            }
        };
        let mut sorted = listed.clone();
        sorted.sort_by_key(keys);
        if sort.is_descending() {
            sorted.reverse();
        }
        assert_eq!(listed, sorted, "{sort:?} is out of order");
    }
}

async fn add_numbered(fixture: &TestStore, n: i64) -> Uuid {
    let input = Input { price_minor: n % 3, ..input(&format!("lamp {}", n % 4), 1) };
    fixture.add(ValidatedProduct::new(input).unwrap(), START + Duration::from_secs(u64::try_from(n % 2).unwrap())).await.id
}

async fn names(fixture: &TestStore, filter: Filter) -> Vec<String> {
    let page = fixture.store.list(Query::new(filter, Sort::NameAsc, 0, None).unwrap()).await.unwrap();
    page.items.into_iter().map(|product| product.name).collect()
}

pub(crate) async fn filters_narrow_the_list(fixture: TestStore) {
    for (name, category, price_minor, is_active) in
        [("a", "home", 1, true), ("b", "home", 2, false), ("c", "Home", 3, true), ("d", "garden", 4, true)]
    {
        let product = Input { category: category.into(), price_minor, is_active, ..input(name, 1) };
        fixture.add(ValidatedProduct::new(product).unwrap(), START).await;
    }
    let all = Filter::default;
    assert_eq!(names(&fixture, all()).await, ["a", "b", "c", "d"]);
    assert_eq!(names(&fixture, Filter { category: Some("home".into()), ..all() }).await, ["a", "b"]);
    assert_eq!(names(&fixture, Filter { is_active: Some(false), ..all() }).await, ["b"]);
    assert_eq!(names(&fixture, Filter { category: Some("home".into()), is_active: Some(true), ..all() }).await, ["a"]);
    assert_eq!(names(&fixture, Filter { min_price_minor: Some(2), max_price_minor: Some(3), ..all() }).await, ["b", "c"]);
    assert_eq!(names(&fixture, Filter { category: Some("nowhere".into()), ..all() }).await, [""; 0]);
}

pub(crate) async fn search_text_is_not_a_pattern(fixture: TestStore) {
    for (name, description) in [("100% Wool_Sock", "warm"), ("Café (big) [x]", "a+b \\ c.d"), ("Plain", "ÉTÉ ^start$ {1} | #-/*?")] {
        fixture.add(ValidatedProduct::new(Input { description: description.into(), ..input(name, 1) }).unwrap(), START).await;
    }
    for (text, expected) in [
        ("wool", vec!["100% Wool_Sock"]),
        ("0% w", vec!["100% Wool_Sock"]),
        ("l_s", vec!["100% Wool_Sock"]),
        ("l%s", vec![]),
        ("_", vec!["100% Wool_Sock"]),
        ("CAFÉ", vec!["Café (big) [x]"]),
        ("(big) [", vec!["Café (big) [x]"]),
        ("a+b \\ c.d", vec!["Café (big) [x]"]),
        ("a.b", vec![]),
        ("été ^START$ {1} | #-/*?", vec!["Plain"]),
        (".*", vec![]),
        ("(a+)+$", vec![]),
        ("m", vec!["100% Wool_Sock"]),
    ] {
        assert_eq!(names(&fixture, Filter { text: Some(text.into()), ..Filter::default() }).await, expected, "{text:?}");
    }
}
