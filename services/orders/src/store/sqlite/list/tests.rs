use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;
use crate::store::{Maintenance, SqliteStore, queries::combinations};

#[tokio::test]
async fn every_combination_is_served_by_an_index() {
    let files = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/orders.db", files.path().display());
    SqliteStore::new(&url).unwrap().migrate().await.unwrap();
    let mut db = SqliteConnection::connect(&url).await.unwrap();
    let now = OffsetDateTime::UNIX_EPOCH;
    for list in combinations("alice", [Uuid::from_u128(1), Uuid::from_u128(2)], (now, now + Duration::HOUR)) {
        let explained = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", select(&list).into_string()));
        let rows = sqlx::query(explained).fetch_all(&mut db).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let is_page = |step: &str| step.starts_with("SCAN (subquery") || step == "SCAN o";
        let reads = plan.iter().filter(|step| step.starts_with("SCAN") || step.starts_with("SEARCH"));
        assert!(reads.into_iter().all(|step| is_page(step) || step.contains(" USING ")), "{list:?}: {plan:#?}");
        // Only pages are sorted.
        let sorted = plan.windows(2).filter(|steps| steps[1].starts_with("USE TEMP B-TREE")).map(|steps| &steps[0]);
        assert!(sorted.into_iter().all(|step| is_page(step) || step.starts_with("SEARCH l ")), "{list:?}: {plan:#?}");
    }
}
