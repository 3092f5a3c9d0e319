use palisade_tests::servers;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, types::Json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;
use crate::store::{Maintenance, PostgresStore, queries::combinations};

/// 20,000 orders, one per second: 50 users, all statuses, a tenth of the terminal ones removed. One
/// product is in every second order, the other in every thousandth.
const ROWS: &str = "
    INSERT INTO orders (id, user_id, status, failure_reason, version, created_at, updated_at, due_at, fence, attempts, saga_deadline,
        release_pending, total_minor, deleted_at)
    SELECT (lpad(to_hex(n * 1000), 12, '0') || '70008' || substr(md5(n::text), 1, 15))::uuid, 'user' || n % 50, status,
           CASE status WHEN 'FAILED' THEN 'insufficient_stock' END, 1, to_timestamp(n), to_timestamp(n),
           CASE status WHEN 'PENDING' THEN now() END, 1, 0, now(), FALSE, CASE WHEN status IN ('CONFIRMED', 'COMPLETED') THEN 100 END,
           CASE WHEN status IN ('COMPLETED', 'CANCELLED', 'FAILED') AND n % 10 = 3 THEN now() END
    FROM generate_series(1, 20000) n,
    LATERAL (SELECT CASE WHEN n % 97 = 0 THEN 'PENDING' ELSE (ARRAY['COMPLETED', 'CONFIRMED', 'CANCELLED', 'FAILED'])[n % 4 + 1] END) s (status);
    INSERT INTO order_lines (order_id, position, product_id, quantity)
    SELECT id, 1, CASE WHEN n % 2 = 0 THEN '00000000-0000-0000-0000-000000000001'::uuid ELSE gen_random_uuid() END, 1
    FROM (SELECT id, row_number() OVER () AS n FROM orders) o;
    INSERT INTO order_lines (order_id, position, product_id, quantity)
    SELECT id, 2, '00000000-0000-0000-0000-000000000002', 1 FROM (SELECT id, row_number() OVER () AS n FROM orders) o WHERE n % 1000 = 0";
/// Maximum number of rows that a step of a plan reads for a page of 20 orders.
const MAX_ROWS: f64 = 2_500.0;

/// Returns the steps of a plan.
fn steps<'a>(plan: &'a Value, all: &mut Vec<&'a Value>) {
    all.push(plan);
    for step in plan["Plans"].as_array().into_iter().flatten() {
        steps(step, all);
    }
}

#[tokio::test]
async fn every_combination_reads_few_rows_by_an_index() {
    let url = servers::shared_postgres().url(&format!("orders_{}", Uuid::new_v4().simple()));
    PostgresStore::new(&url, 1).unwrap().migrate().await.unwrap();
    let mut db = PgConnection::connect(&url).await.unwrap();
    db.execute(ROWS).await.unwrap();
    db.execute("ANALYZE").await.unwrap();
    let at = |second| OffsetDateTime::UNIX_EPOCH + Duration::seconds(second);
    for mode in ["force_custom_plan", "force_generic_plan"] {
        db.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
        for list in combinations("user7", [Uuid::from_u128(1), Uuid::from_u128(2)], (at(5_000), at(15_000))) {
            let mut query = QueryBuilder::new("EXPLAIN (ANALYZE, FORMAT JSON) ");
            push_select(&mut query, &list);
            let Json(explained): Json<Value> = query.build_query_scalar().fetch_one(&mut db).await.unwrap();
            let mut all = Vec::new();
            steps(&explained[0]["Plan"], &mut all);
            for step in all {
                let number = |name: &str| step[name].as_f64().unwrap_or_default();
                let rows = (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops");
                assert!(step["Node Type"] != "Seq Scan" && rows <= MAX_ROWS, "{mode} {list:?}: {step:#}");
            }
        }
    }
}
