//! Catalogue: create, replace, remove, list.

use std::{collections::HashSet, time::Duration};

use palisade_middleware::preconditions::{Condition, VersionPreconditions};
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
    let updated =
        fixture.store.update(created.id, replacement.clone(), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap();
    let expected = Product { version: 2, created_at: START, ..replacement.into_product(created.id, LATER) };
    assert_eq!(updated, UpdateOutcome::Updated(expected.clone()));
    assert_eq!(fixture.get(created.id).await, expected);

    assert_eq!(fixture.store.remove(created.id, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::Removed);
    assert_eq!(fixture.store.find(created.id).await.unwrap(), None);
    assert_eq!(fixture.store.remove(created.id, VersionPreconditions::default(), LATER).await.unwrap(), RemoveOutcome::NotFound);
    assert_eq!(
        fixture.store.update(created.id, draft("Lamp", 3), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap(),
        UpdateOutcome::NotFound
    );
}

pub(crate) async fn expected_version_guards_update_and_remove(fixture: TestStore) {
    let id = fixture.add_some("Lamp", 3).await;
    assert_eq!(
        fixture.store.update(id, draft("Lantern", 3), VersionPreconditions::expect(2), "alice".into(), LATER).await.unwrap(),
        UpdateOutcome::VersionMismatch
    );
    assert!(matches!(
        fixture.store.update(id, draft("Lantern", 3), VersionPreconditions::expect(1), "alice".into(), LATER).await.unwrap(),
        UpdateOutcome::Updated(_)
    ));
    assert_eq!(fixture.store.remove(id, VersionPreconditions::expect(1), LATER).await.unwrap(), RemoveOutcome::VersionMismatch);
    assert_eq!(fixture.store.remove(id, VersionPreconditions::expect(2), LATER).await.unwrap(), RemoveOutcome::Removed);
    let unknown = Uuid::now_v7();
    assert_eq!(
        fixture.store.update(unknown, draft("Lamp", 3), VersionPreconditions::expect(1), "alice".into(), LATER).await.unwrap(),
        UpdateOutcome::NotFound
    );
    assert_eq!(fixture.store.remove(unknown, VersionPreconditions::expect(1), LATER).await.unwrap(), RemoveOutcome::NotFound);
}

/// Returns conditions and whether a product in version 2 satisfies them.
fn conditions() -> Vec<(VersionPreconditions, bool)> {
    let listed = |versions: &[i64]| Some(Condition::Listed(versions.to_vec()));
    [
        (None, None, true),
        (Some(Condition::Any), None, true),
        (listed(&[1, 2]), None, true),
        (listed(&[1, 3]), None, false),
        (listed(&[]), None, false),
        (None, Some(Condition::Any), false),
        (None, listed(&[2]), false),
        (None, listed(&[1, 3]), true),
        (None, listed(&[]), true),
        (listed(&[2]), listed(&[1]), true),
        (listed(&[2]), listed(&[2]), false),
        (Some(Condition::Any), Some(Condition::Any), false),
    ]
    .into_iter()
    .map(|(if_match, if_none_match, holds)| (VersionPreconditions { if_match, if_none_match }, holds))
    .collect()
}

pub(crate) async fn conditions_are_evaluated_with_the_write(fixture: TestStore) {
    for (conditions, holds) in conditions() {
        let id = fixture.add_some("Lamp", 3).await;
        fixture.store.update(id, draft("Lantern", 3), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap();
        let updated = fixture.store.update(id, draft("Candle", 4), conditions.clone(), "alice".into(), LATER).await.unwrap();
        assert_eq!(matches!(updated, UpdateOutcome::Updated(_)), holds, "{conditions:?}");
        assert_eq!(updated == UpdateOutcome::VersionMismatch, !holds, "{conditions:?}");
        assert_eq!(fixture.get(id).await.quantity, if holds { 4 } else { 3 });

        let id = fixture.add_some("Lamp", 3).await;
        fixture.store.update(id, draft("Lantern", 3), VersionPreconditions::default(), "alice".into(), LATER).await.unwrap();
        let removed = fixture.store.remove(id, conditions.clone(), LATER).await.unwrap();
        assert_eq!(removed, if holds { RemoveOutcome::Removed } else { RemoveOutcome::VersionMismatch }, "{conditions:?}");
        let missing = fixture.store.remove(Uuid::now_v7(), conditions, LATER).await.unwrap();
        assert_eq!(missing, RemoveOutcome::NotFound);
    }
}

pub(crate) async fn text_is_stored_literally(fixture: TestStore) {
    let special = Input {
        description: "$$ROOT\n{\"$gt\": \"\"}'; DROP TABLE products; --".into(),
        category: "$category".into(),
        ..input("$quantity", 7)
    };
    let id = fixture.add(ValidatedProduct::new(special.clone()).unwrap(), START).await.id;
    let replacement = Input { name: "$literal 🦀 e\u{301}".into(), ..special };
    fixture
        .store
        .update(id, ValidatedProduct::new(replacement.clone()).unwrap(), VersionPreconditions::default(), "alice".into(), LATER)
        .await
        .unwrap();
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

pub(crate) async fn search_folds_case_and_normalizes(fixture: TestStore) {
    for name in ["ΚΟΣΜΟΣ", "Straße", "Cafe\u{301} noir", "İstanbul", "Ω"] {
        fixture.add_some(name, 1).await;
    }
    for (text, expected) in [
        ("ΚΟΣ", Some("ΚΟΣΜΟΣ")),
        ("κος", Some("ΚΟΣΜΟΣ")),
        ("σμοσ", Some("ΚΟΣΜΟΣ")),
        ("Σ", Some("ΚΟΣΜΟΣ")),
        ("ΜΟ", Some("ΚΟΣΜΟΣ")),
        ("STRASSE", Some("Straße")),
        ("ASSE", Some("Straße")),
        ("ẞ", Some("Straße")),
        ("CAFÉ", Some("Cafe\u{301} noir")),
        ("É", Some("Cafe\u{301} noir")),
        ("e\u{301} n", Some("Cafe\u{301} noir")),
        ("i\u{307}stan", Some("İstanbul")),
        ("\u{2126}", Some("Ω")),
        ("cafe n", None),
        ("zzzz", None),
        ("zz", None),
        ("z", None),
    ] {
        let filter = Filter { text: Some(text.into()), ..Filter::default() };
        let page = fixture.store.list(Query::new(filter, Sort::Newest, 10, None).unwrap()).await.unwrap();
        assert_eq!(page.items.iter().map(|product| product.name.as_str()).collect::<Vec<_>>(), Vec::from_iter(expected), "{text}");
    }
    // Canonically equivalent categories are equal.
    let label = ValidatedProduct::new(Input { category: "Cafe\u{301}".into(), ..input("Cup", 1) }).unwrap();
    assert_eq!(fixture.add(label, START).await.category, "Café");
}

pub(crate) async fn search_combines_with_every_filter(fixture: TestStore) {
    let mut expected = Vec::new();
    for n in 0..30 {
        let product = fixture.add_some(&format!("{} {n:02}", if n % 2 == 0 { "Lamp" } else { "Chair" }), 1).await;
        if n % 2 == 0 {
            expected.push(product);
        }
    }
    for (sort, reversed) in [(Sort::NameAsc, false), (Sort::NameDesc, true), (Sort::Oldest, false)] {
        for text in ["LAMP", "la", "p"] {
            let (mut listed, mut after) = (Vec::new(), None);
            loop {
                let filter = Filter {
                    text: Some(text.into()),
                    category: Some("home".into()),
                    is_active: Some(true),
                    max_price_minor: Some(1999),
                    ..Filter::default()
                };
                let page = fixture.store.list(Query::new(filter, sort, 4, after).unwrap()).await.unwrap();
                listed.extend(page.items.iter().map(|product| product.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            if reversed {
                listed.reverse();
            }
            assert_eq!(listed, expected, "{sort:?} {text}");
        }
    }
    let filter = Filter { text: Some("LAMP".into()), category: Some("other".into()), ..Filter::default() };
    assert_eq!(fixture.store.list(Query::new(filter, Sort::Newest, 10, None).unwrap()).await.unwrap().items, []);
}
