use super::*;
use crate::{
    product::{ChangedFields, Edit, Query, Sort},
    store::{
        HistoryStore, MongoStore, ProductStore,
        mongo::test_store::{NOW, input, new_store},
    },
};

async fn found(store: &MongoStore, text: &str) -> usize {
    let filter = Filter { text: Some(text.into()), ..Filter::default() };
    store.list(Query::new(filter, Sort::Newest, 100, None).unwrap()).await.unwrap().items.len()
}

async fn add(store: &MongoStore, name: &str) -> Uuid {
    let id = Uuid::now_v7();
    let draft = crate::product::ValidatedProduct::new(crate::product::Input { name: name.into(), ..input(1) }).unwrap();
    store.create(id, draft, None, "alice".into(), NOW).await.unwrap();
    id
}

#[test]
fn search_text_is_escaped() {
    assert_eq!(escape_regex("a.b (c)+$"), r"a\.b \(c\)\+\$");
    assert_eq!(escape_regex(r"\d[x]{2}|^é"), r"\\d\[x\]\{2\}\|\^é");
}

#[tokio::test]
async fn search_uses_the_index() {
    let store = new_store().await;
    for n in 0..50 {
        add(&store, &format!("Lamp {n}")).await;
    }
    for text in ["z", "zz", "zzz", "zzzz", "lamp 7"] {
        let filter = Filter { text: Some(text.into()), ..Filter::default() };
        let find = doc! { "find": "products", "filter": condition(&filter).unwrap() };
        let plan = store.database.run_command(doc! { "explain": find, "verbosity": "queryPlanner" }).await.unwrap();
        let plan = plan.get_document("queryPlanner").unwrap().get("winningPlan").unwrap().to_string();
        assert!(plan.contains("IXSCAN") && !plan.contains("COLLSCAN"), "{text}: {plan}");
    }
    assert_eq!((found(&store, "LAMP").await, found(&store, "mp 4").await, found(&store, "zz").await), (50, 11, 0));
}

/// Products of replicas of the previous release: created without search data, or renamed beside it.
#[tokio::test]
async fn products_of_the_previous_release_are_found() {
    let store = new_store().await;
    let created = add(&store, "ΚΟΣΜΟΣ").await;
    let renamed = add(&store, "Lamp").await;
    let label = add(&store, "Chair").await;
    store.tamper(created, doc! { "$unset": { "search": "" } }).await;
    store.tamper(renamed, doc! { "$set": { "name": "ΚΟΣΜΟΣ 2", "folded": "κοσμος 2\n" } }).await;
    store.tamper(label, doc! { "$set": { "category": "cafe\u{301}" } }).await;
    assert_eq!(found(&store, "κοσμος").await, 1, "by the text of the previous release");
    let mut after = None;
    while let Some(last) = refresh(&store.collections, after, 2).await.unwrap() {
        after = Some(last);
    }
    assert_eq!((found(&store, "κοσ").await, found(&store, "ΚΟΣ").await, found(&store, "Lamp").await), (2, 2, 0));
    let label = store.find(label).await.unwrap().unwrap();
    assert_eq!((label.category.as_str(), label.version), ("café", 2));
    let recomposed = store.history(label.id).await.unwrap().unwrap().swap_remove(0);
    let category = Some(Edit { from: Some("cafe\u{301}".to_owned()), to: "café".to_owned() });
    assert_eq!((recomposed.version, recomposed.actor, recomposed.at), (2, None, label.updated_at));
    assert_eq!(recomposed.fields, ChangedFields { category, ..ChangedFields::default() });
    assert_eq!(store.find(created).await.unwrap().unwrap().version, 1, "no visible field changes");
}
