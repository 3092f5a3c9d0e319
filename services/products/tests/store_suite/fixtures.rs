//! Fresh stores and sample products.

use std::{any::Any, sync::Arc, time::Duration};

use palisade_middleware::store_instrumentation::Database;
use palisade_products::{
    product::{Input, Product, ValidatedProduct},
    reservation::{Line, Lines, ReserveOutcome},
    store::{CreateOutcome, MongoStore, SqliteStore, Store},
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

pub(crate) const START: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);
pub(crate) const HOLD: Duration = Duration::from_mins(15);
/// Time at which every hold taken at `START` has expired and every unfinished reservation counts
/// as abandoned.
pub(crate) const LATER: OffsetDateTime = datetime!(2026-01-01 1:00 UTC);

/// Store with its own database, deleted on drop.
pub(crate) struct TestStore {
    pub(crate) store: Arc<dyn Store>,
    _files: Box<dyn Any + Send>,
}

pub(crate) async fn sqlite() -> TestStore {
    let files = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&format!("sqlite://{}/products.db", files.path().display())).await.unwrap();
    TestStore { store: Arc::new(store), _files: Box::new(files) }
}

pub(crate) async fn mongo() -> TestStore {
    let database = Uuid::now_v7().simple().to_string();
    let store: Arc<dyn Store> = Arc::new(MongoStore::new(&palisade_tests::servers::shared_mongo().url(&database)).await.unwrap());
    store.migrate().await.unwrap();
    TestStore { store, _files: Box::new(()) }
}

/// Database attributes for tests that do not check them.
pub(crate) fn test_database() -> Database {
    Database { system: "test", namespace: "test".into(), server: None }
}

pub(crate) fn input(name: &str, quantity: i64) -> Input {
    Input { name: name.into(), description: "as seen".into(), price_minor: 1999, quantity, category: "home".into(), is_active: true }
}

pub(crate) fn draft(name: &str, quantity: i64) -> ValidatedProduct {
    ValidatedProduct::new(input(name, quantity)).unwrap()
}

pub(crate) fn lines(lines: &[(Uuid, i64)]) -> Lines {
    Lines::new(lines.iter().map(|&(product_id, quantity)| Line { product_id, quantity }).collect()).unwrap()
}

impl TestStore {
    pub(crate) async fn add(&self, draft: ValidatedProduct, at: OffsetDateTime) -> Product {
        match self.store.create(Uuid::now_v7(), draft, None, "alice".into(), at).await.unwrap() {
            CreateOutcome::Created { product, .. } => product,
            CreateOutcome::KeyReused => panic!("no key was used"),
        }
    }

    pub(crate) async fn add_some(&self, name: &str, quantity: i64) -> Uuid {
        self.add(draft(name, quantity), START).await.id
    }

    pub(crate) async fn get(&self, id: Uuid) -> Product {
        self.store.find(id).await.unwrap().expect("the product exists")
    }

    pub(crate) async fn available(&self, id: Uuid) -> i64 {
        self.get(id).await.quantity
    }

    pub(crate) async fn reserve(&self, id: Uuid, requested: &[(Uuid, i64)]) -> ReserveOutcome {
        self.store.reserve(id, lines(requested), START, HOLD).await.unwrap()
    }

    /// Reserves under a new id. Panics if the reserve fails.
    pub(crate) async fn hold(&self, requested: &[(Uuid, i64)]) -> Uuid {
        let id = Uuid::now_v7();
        let reserved = self.reserve(id, requested).await;
        assert!(matches!(reserved, ReserveOutcome::Held(_)), "{reserved:?}");
        id
    }

    pub(crate) async fn assert_balanced(&self) {
        let audit = self.store.audit(START).await.unwrap();
        assert_eq!(audit.violations, []);
    }
}
