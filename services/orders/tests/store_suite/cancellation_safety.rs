//! Cancellation safety: calls whose callers are dropped midway, like request handlers whose client
//! disconnects.

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use futures_util::future::join_all;
use palisade_middleware::task;
use palisade_orders::store::{InstrumentedStore, OrderStore};
use tokio::time::{Instant, sleep};

use crate::database::{BackDoor, Database, LEASE, NOW, create, database_attributes};

crate::on_both![cancelled_calls_do_not_affect_others, instrumented_call_survives_cancellation];

async fn cancelled_calls_do_not_affect_others(db: Database) {
    let mut acknowledged = HashSet::new();
    for waits in 0..12 {
        let callers = (0..20).map(|n| {
            let db = db.clone();
            task::spawn(async move {
                match n % 4 {
                    // A transaction: a BEGIN that is dropped can leave its connection in a
                    // transaction for the next borrower.
                    0 => drop_after(waits, db.store.audit(NOW, LEASE, None)).await,
                    1 => drop_after(waits, db.store.create(create("cancelled", NOW), NOW)).await,
                    _ => {}
                }
                db.accept("finished", NOW).await.saga.order.id
            })
        });
        acknowledged.extend(join_all(callers).await.into_iter().map(Result::unwrap));
    }
    let ids = acknowledged.iter().copied().collect();
    let stored: HashSet<_> = db.store.saga_statuses(ids).await.unwrap().into_iter().map(|status| status.order_id).collect();
    assert_eq!(stored, acknowledged, "acknowledged orders are stored");
    assert_eq!(stored.len(), 12 * 20);
    db.assert_invariants(NOW).await;
    assert_no_idle_transaction(&db.back_door).await;
}

/// Waits until no connection is idle in a transaction. Released connections are cleaned up in the
/// background.
async fn assert_no_idle_transaction(back_door: &BackDoor) {
    let BackDoor::Postgres { pool } = back_door else { return };
    let idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in transaction%'";
    let until = Instant::now() + Duration::from_secs(2);
    while sqlx::query_scalar::<_, i64>(idle).fetch_one(pool).await.unwrap() > 0 {
        assert!(Instant::now() < until, "a connection remains idle in a transaction");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn instrumented_call_survives_cancellation(db: Database) {
    let instrumented = InstrumentedStore::new(db.store.clone(), database_attributes(), Duration::from_secs(5));
    let create = create("alice", NOW);
    let id = create.id;
    drop_after(0, instrumented.create(create, NOW)).await;
    let until = Instant::now() + Duration::from_secs(5);
    while db.store.find(id).await.unwrap().is_none() {
        assert!(Instant::now() < until, "the order was never written");
    }
    db.assert_invariants(NOW).await;
}

/// Polls `call` until it has been pending `pending_polls` + 1 times, then drops it.
async fn drop_after(mut pending_polls: u32, call: impl Future) {
    let mut call = pin!(call);
    poll_fn(|context| {
        let stop = call.as_mut().poll(context).is_ready() || pending_polls == 0;
        pending_polls = pending_polls.saturating_sub(1);
        if stop { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
