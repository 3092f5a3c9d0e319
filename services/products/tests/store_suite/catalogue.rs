//! Catalogue: create, replace, remove, list.

use std::{collections::HashSet, time::Duration};

use palisade_products::{
    product::{Filter, Input, Product, Query, Sort, ValidatedProduct},
    store::{Removed, Updated},
};
use uuid::Uuid;

use crate::fixtures::{LATER, START, TestStore, draft, input};

pub(crate) async fn create_update_and_remove_are_persistent(fresh: TestStore) {
    let created = fresh.add(draft("Lamp", 3), START).await;
    assert_eq!((created.version, created.created_at, created.updated_at), (1, START, START));
    assert_eq!(fresh.get(created.id).await, created);

    let replacement =
        ValidatedProduct::new(Input { is_active: false, price_minor: 0, description: String::new(), ..input("Lantern", 9) }).unwrap();
    let updated = fresh.store.update(created.id, replacement.clone(), None, LATER).await.unwrap();
    let expected = Product { version: 2, created_at: START, ..replacement.into_product(created.id, LATER) };
    assert_eq!(updated, Updated::Updated(expected.clone()));
    assert_eq!(fresh.get(created.id).await, expected);

    assert_eq!(fresh.store.remove(created.id, None, crate::fixtures::LATER).await.unwrap(), Removed::Removed);
    assert_eq!(fresh.store.find(created.id).await.unwrap(), None);
    assert_eq!(fresh.store.remove(created.id, None, crate::fixtures::LATER).await.unwrap(), Removed::NotFound);
    assert_eq!(fresh.store.update(created.id, draft("Lamp", 3), None, LATER).await.unwrap(), Updated::NotFound);
}

pub(crate) async fn expected_version_guards_update_and_remove(fresh: TestStore) {
    let id = fresh.add_some("Lamp", 3).await;
    assert_eq!(fresh.store.update(id, draft("Lantern", 3), Some(2), LATER).await.unwrap(), Updated::VersionMismatch);
    assert!(matches!(fresh.store.update(id, draft("Lantern", 3), Some(1), LATER).await.unwrap(), Updated::Updated(_)));
    assert_eq!(fresh.store.remove(id, Some(1), crate::fixtures::LATER).await.unwrap(), Removed::VersionMismatch);
    assert_eq!(fresh.store.remove(id, Some(2), crate::fixtures::LATER).await.unwrap(), Removed::Removed);
    let nobody = Uuid::now_v7();
    assert_eq!(fresh.store.update(nobody, draft("Lamp", 3), Some(1), LATER).await.unwrap(), Updated::NotFound);
    assert_eq!(fresh.store.remove(nobody, Some(1), crate::fixtures::LATER).await.unwrap(), Removed::NotFound);
}

pub(crate) async fn text_is_stored_literally(fresh: TestStore) {
    let odd = Input {
        description: "$$ROOT\n{\"$gt\": \"\"}'; DROP TABLE products; --".into(),
        category: "$category".into(),
        ..input("$quantity", 7)
    };
    let id = fresh.add(ValidatedProduct::new(odd.clone()).unwrap(), START).await.id;
    let again = Input { name: "$literal 🦀 e\u{301}".into(), ..odd };
    fresh.store.update(id, ValidatedProduct::new(again.clone()).unwrap(), None, LATER).await.unwrap();
    let kept = fresh.get(id).await;
    assert_eq!((kept.name, kept.description, kept.category), (again.name, again.description, again.category));
}

pub(crate) async fn pages_are_stable_under_concurrent_inserts(fresh: TestStore) {
    for sort in [Sort::Newest, Sort::Oldest, Sort::PriceAsc, Sort::PriceDesc, Sort::NameAsc, Sort::NameDesc] {
        // Many ties, so that the id must break them.
        let mut before = HashSet::new();
        for n in 0..23 {
            before.insert(add_numbered(&fresh, n).await);
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = fresh.store.list(Query::new(Filter::default(), sort, 5, after).unwrap()).await.unwrap();
            seen.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
            add_numbered(&fresh, i64::try_from(seen.len()).unwrap()).await;
        }
        let ids: Vec<_> = seen.iter().map(|product| product.id).collect();
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
        let mut sorted = seen.clone();
        sorted.sort_by_key(keys);
        if sort.is_descending() {
            sorted.reverse();
        }
        assert_eq!(seen, sorted, "{sort:?} is out of order");
    }
}

async fn add_numbered(fresh: &TestStore, n: i64) -> Uuid {
    let input = Input { price_minor: n % 3, ..input(&format!("lamp {}", n % 4), 1) };
    fresh.add(ValidatedProduct::new(input).unwrap(), START + Duration::from_secs(u64::try_from(n % 2).unwrap())).await.id
}

async fn names(fresh: &TestStore, filter: Filter) -> Vec<String> {
    let page = fresh.store.list(Query::new(filter, Sort::NameAsc, 0, None).unwrap()).await.unwrap();
    page.items.into_iter().map(|product| product.name).collect()
}

pub(crate) async fn filters_narrow_the_list(fresh: TestStore) {
    for (name, category, price_minor, is_active) in
        [("a", "home", 1, true), ("b", "home", 2, false), ("c", "Home", 3, true), ("d", "garden", 4, true)]
    {
        let product = Input { category: category.into(), price_minor, is_active, ..input(name, 1) };
        fresh.add(ValidatedProduct::new(product).unwrap(), START).await;
    }
    let all = Filter::default;
    assert_eq!(names(&fresh, all()).await, ["a", "b", "c", "d"]);
    assert_eq!(names(&fresh, Filter { category: Some("home".into()), ..all() }).await, ["a", "b"]);
    assert_eq!(names(&fresh, Filter { is_active: Some(false), ..all() }).await, ["b"]);
    assert_eq!(names(&fresh, Filter { category: Some("home".into()), is_active: Some(true), ..all() }).await, ["a"]);
    assert_eq!(names(&fresh, Filter { min_price_minor: Some(2), max_price_minor: Some(3), ..all() }).await, ["b", "c"]);
    assert_eq!(names(&fresh, Filter { category: Some("nowhere".into()), ..all() }).await, [""; 0]);
}

pub(crate) async fn search_text_is_not_a_pattern(fresh: TestStore) {
    for (name, description) in [("100% Wool_Sock", "warm"), ("Café (big) [x]", "a+b \\ c.d"), ("Plain", "ÉTÉ ^start$ {1} | #-/*?")] {
        fresh.add(ValidatedProduct::new(Input { description: description.into(), ..input(name, 1) }).unwrap(), START).await;
    }
    for (text, found) in [
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
        assert_eq!(names(&fresh, Filter { text: Some(text.into()), ..Filter::default() }).await, found, "{text:?}");
    }
}
