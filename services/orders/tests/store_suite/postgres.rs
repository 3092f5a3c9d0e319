//! PostgreSQL-specific behaviour: query plans, concurrent replicas, and server outages.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use palisade_middleware::{
    auth::Subject,
    clock::{Clock, ManualClock, SystemClock},
    database_clock::DatabaseClock,
    task,
};
use palisade_orders::{
    order::{OrderId, Status},
    store::{Create, CreateResult, Error, InstrumentedStore, List, Maintenance, OrderStore, Position, PostgresStore, SagaQueue},
};
use palisade_tests::servers;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::time::{Instant, sleep};

use crate::database::{Database, LEASE, NOW, any, create, database_attributes, fresh_postgres, key, owner, reserved};

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_migrations_are_safe() {
    let url = fresh_postgres();
    let replicas = (0..4).map(|_| {
        let store = PostgresStore::new(&url, 2).unwrap();
        task::spawn(async move { store.migrate().await })
    });
    for migrated in join_all(replicas).await {
        migrated.unwrap().unwrap();
    }
    PostgresStore::new(&url, 2).unwrap().create(create("alice", NOW), NOW).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn migration_ignores_the_limits_of_its_role() {
    let url = fresh_postgres();
    let mut back_door = PgConnection::connect(&url).await.unwrap();
    // Each statement of a migration takes longer than the database allows to other statements.
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut back_door).await.unwrap();
    let limits = format!("ALTER DATABASE {database} SET statement_timeout = '50ms'; ALTER DATABASE {database} SET lock_timeout = '50ms'");
    back_door.execute(AssertSqlSafe(limits)).await.unwrap();
    let slow = "CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); END $$;
                CREATE EVENT TRIGGER slow ON ddl_command_start EXECUTE FUNCTION slow()";
    back_door.execute(slow).await.unwrap();
    let replicas = (0..2).map(|_| {
        let store = PostgresStore::new(&url, 2).unwrap();
        task::spawn(async move { store.migrate().await })
    });
    for migrated in join_all(replicas).await {
        migrated.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_server_fails_the_probe_and_loses_its_connections() {
    const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'palisade-orders' AND pid = ANY($1)";
    let server = servers::postgres();
    let url = server.url("orders");
    let store = Arc::new(PostgresStore::new(&url, 2).unwrap());
    store.migrate().await.unwrap();
    let reconnect = store.reconnect();
    let store = InstrumentedStore::new(store, database_attributes(), Duration::from_secs(5)).with_reconnect(reconnect);
    store.create(create("alice", NOW), NOW).await.unwrap();
    let mut back_door = PgConnection::connect(&url).await.unwrap();
    let mut set_read_only = async |value: &str| {
        back_door.execute(AssertSqlSafe(format!("ALTER SYSTEM SET default_transaction_read_only = {value}"))).await.unwrap();
        back_door.execute("SELECT pg_reload_conf()").await.unwrap();
    };
    let all = "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'palisade-orders'";
    let opened_before: Vec<i32> = sqlx::query_scalar(all).fetch_one(&mut PgConnection::connect(&url).await.unwrap()).await.unwrap();
    set_read_only("on").await;
    let until = Instant::now() + Duration::from_mins(1);
    while store.ping().await.is_ok() {
        assert!(Instant::now() < until, "the probe does not write");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(store.create(create("alice", NOW), NOW).await, Err(Error::Unavailable(_))));
    // A connection to a server that was demoted stays read-only: every one is replaced.
    let mut observer = PgConnection::connect(&url).await.unwrap();
    set_read_only("off").await;
    while store.ping().await.is_err() || store.create(create("alice", NOW), NOW).await.is_err() {
        assert!(Instant::now() < until, "the store did not recover");
        sleep(Duration::from_millis(10)).await;
    }
    while sqlx::query_scalar::<_, i64>(OPEN).bind(&opened_before).fetch_one(&mut observer).await.unwrap() > 0 {
        assert!(Instant::now() < until, "connections of the read-only time are still in use");
        // Two at once use both connections of the pool.
        let (first, second) = tokio::join!(store.ping(), store.ping());
        first.and(second).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probe_tells_the_time_of_the_server() {
    let store = PostgresStore::new(&fresh_postgres(), 2).unwrap();
    store.migrate().await.unwrap();
    // The clock of this replica is 10 minutes fast; leases follow the server's.
    let own = ManualClock::new(SystemClock.now() + Duration::from_mins(10));
    let clock = DatabaseClock::new(Arc::new(own));
    let asked = Instant::now();
    clock.synchronize(store.ping().await.unwrap().unwrap(), asked);
    let now = clock.now();
    assert!((now - SystemClock.now()).abs() < Duration::from_mins(1), "{now}");
    store.create(create("alice", now), now).await.unwrap();
    assert_eq!(store.claim_due(SystemClock.now() + LEASE + Duration::from_mins(1), LEASE, 1).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn store_recovers_after_server_restart() {
    let mut server = servers::durable_postgres();
    let url = server.url("orders");
    server.kill();
    let store = PostgresStore::new(&url, 4).unwrap();
    assert!(matches!(store.ping().await, Err(Error::Unavailable(_))));
    assert!(matches!(store.migrate().await, Err(Error::Unavailable(_))));

    server.restart();
    store.migrate().await.unwrap();
    let CreateResult::Created(claimed) = store.create(create("alice", NOW), NOW).await.unwrap() else {
        panic!("the order was not created")
    };
    server.kill();
    assert!(store.create(create("alice", NOW), NOW).await.is_err());
    server.restart();
    assert_eq!(store.find(claimed.saga.order.id).await.unwrap(), Some(claimed.saga.order));
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_server_times_out() {
    let server = servers::postgres();
    let store = Arc::new(PostgresStore::new(&server.url("orders"), 4).unwrap());
    store.migrate().await.unwrap();
    let store = InstrumentedStore::new(store, database_attributes(), Duration::from_millis(300));
    store.ping().await.unwrap();
    server.pause();
    let started = Instant::now();
    assert!(matches!(store.create(create("alice", NOW), NOW).await, Err(Error::Timeout)));
    assert!(started.elapsed() < Duration::from_secs(2));
    server.resume();
    let until = Instant::now() + Duration::from_secs(10);
    while store.ping().await.is_err() {
        assert!(Instant::now() < until, "the store did not recover");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn serialization_failures_are_retried() {
    // A sequence is not rolled back with its transaction.
    const LOSE_TWO_OF_THREE: &str = "
        CREATE SEQUENCE tries;
        CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF nextval('tries') % 3 <> 0 THEN RAISE EXCEPTION 'lost' USING ERRCODE = 'serialization_failure'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER lose BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION lose()";
    let db = Database::postgres().await;
    db.back_door.execute(LOSE_TWO_OF_THREE).await.unwrap();
    db.accept("alice", NOW).await;
    db.back_door.execute("SELECT setval('tries', 3)").await.unwrap();
    db.accept("alice", NOW).await;
    db.back_door.execute("ALTER SEQUENCE tries INCREMENT BY 3 RESTART WITH 1").await.unwrap();
    assert!(matches!(db.store.create(create("alice", NOW), NOW).await, Err(Error::Unavailable(_))), "retries are limited");
    db.assert_invariants(NOW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_do_not_scan_whole_tables() {
    const ROWS: &str = "
        INSERT INTO orders (id, user_id, status, version, created_at, updated_at, fence, attempts, saga_deadline, release_pending, total_minor)
        SELECT gen_random_uuid(), 'user' || n % 50, CASE n % 3 WHEN 0 THEN 'COMPLETED' WHEN 1 THEN 'CONFIRMED' ELSE 'CANCELLED' END, 1,
               now() - n * interval '1 second', now(), 1, 0, now(), FALSE, 100
        FROM generate_series(1, 20000) n;
        INSERT INTO order_lines (order_id, position, product_id, quantity, name, unit_price_minor)
        SELECT id, 1, gen_random_uuid(), 1, 'pen', 100 FROM orders;
        INSERT INTO order_history (order_id, version, to_status, at) SELECT id, 1, 'PENDING', now() FROM orders";
    let url = fresh_postgres();
    let store = PostgresStore::new(&url, 1).unwrap();
    store.migrate().await.unwrap();
    let mut back_door = PgConnection::connect(&url).await.unwrap();
    back_door.execute(ROWS).await.unwrap();
    back_door.execute("ANALYZE").await.unwrap();
    let before = scans(&mut back_door).await;

    let (user_id, status) = (Some(Subject::from("user7")), Some(Status::Confirmed));
    let after = Some(Position { created_at: NOW, id: OrderId::generate(NOW) });
    // More runs than PostgreSQL needs to switch from custom to generic plans.
    for _ in 0..10 {
        for (user_id, status) in [(None, None), (user_id.clone(), None), (None, status), (user_id.clone(), status)] {
            for after in [None, after] {
                store.list(List { user_id: user_id.clone(), status, limit: 20, after, ..List::default() }).await.unwrap();
            }
        }
        let keyed = Create { key: Some(key("user7", "k")), ..create("user7", NOW) };
        store.create(keyed, NOW).await.unwrap();
        let CreateResult::Created(claimed) = store.create(create("user7", NOW), NOW).await.unwrap() else {
            panic!("the order was not created")
        };
        let id = claimed.saga.order.id;
        store.transition(claimed.clone(), vec![reserved(&claimed.saga.order)], None, NOW).await.unwrap();
        store.find(id).await.unwrap();
        store.history(id).await.unwrap();
        store.set_status(id, Status::Cancelled, owner(), any(), NOW).await.unwrap();
        store.remove(id, owner(), any(), NOW).await.unwrap();
        store.claim_due(NOW + LEASE, LEASE, 20).await.unwrap();
        store.postpone(id, 3, NOW, "later".into()).await.unwrap();
        store.stuck(NOW, 3, 20).await.unwrap();
        store.saga_statuses(vec![id]).await.unwrap();
        store.stats(NOW).await.unwrap();
    }
    // Statistics of a connection are flushed at the latest when it closes.
    drop(store);
    let connected = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'palisade-orders'";
    let until = Instant::now() + Duration::from_secs(5);
    while sqlx::query_scalar::<_, i64>(connected).fetch_one(&mut back_door).await.unwrap() > 0 {
        assert!(Instant::now() < until, "the store's connections were not closed");
        sleep(Duration::from_millis(10)).await;
    }
    let after = scans(&mut back_door).await;
    assert!(after.by_index > before.by_index + 100, "{before:?} {after:?}");
    assert_eq!(after.whole, before.whole, "a statement scans a whole table");
}

#[derive(Debug)]
struct Scans {
    whole: i64,
    by_index: i64,
}

/// Returns how often the large tables were read by a full scan and by an index scan.
async fn scans(connection: &mut PgConnection) -> Scans {
    connection.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let counts = "SELECT sum(seq_scan)::bigint, sum(idx_scan)::bigint FROM pg_stat_user_tables WHERE relname IN ('orders', 'order_lines', 'order_history')";
    let (whole, by_index) = sqlx::query_as(counts).fetch_one(connection).await.unwrap();
    Scans { whole, by_index }
}
