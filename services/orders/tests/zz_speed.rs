#![allow(clippy::all, clippy::pedantic, missing_docs, unused, clippy::unwrap_used, clippy::allow_attributes, clippy::print_stdout)]
#[path = "store_suite/database.rs"]
mod database;
use database::*;
use std::sync::Arc;
use futures_util::future::join_all;
async fn go(db: Database, name: &str) {
    for tasks in [1usize, 4, 16] {
        let n = 200;
        let t = tokio::time::Instant::now();
        join_all((0..tasks).map(|_| { let db = db.clone(); tokio::spawn(async move { for _ in 0..n/tasks { let c = db.accept("a", NOW).await; db.confirm(&c, NOW).await; } }) })).await;
        let e = t.elapsed();
        println!("{name} {tasks} tasks: {:.0} orders/s, {:.2} ms per write", n as f64 / e.as_secs_f64(), e.as_secs_f64()*1000.0*tasks as f64/(n as f64*3.0));
    }
}
#[tokio::test(flavor = "multi_thread")]
async fn speed() { go(Database::sqlite().await, "sqlite").await; go(Database::postgres().await, "postgres(fsync off)").await; }
