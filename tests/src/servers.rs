//! Disposable servers with their own port and directory, removed with the test that started them.
//!
//! ```no_run
//! let postgres = palisade_tests::servers::shared_postgres();
//! let url = postgres.url("orders_test");
//! ```

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, OnceLock, PoisonError},
};

mod dns;
mod etcd;
mod mongo;
mod nats;
mod postgres;
mod prometheus;
mod redis;

pub use dns::Dns;
pub use etcd::Etcd;
pub use mongo::Mongo;
pub use nats::Nats;
pub use postgres::Postgres;
pub use prometheus::{Prometheus, Sample};
pub use redis::Redis;

/// Starts a PostgreSQL server without fsync: fast, but not crash-safe.
pub fn postgres() -> Postgres {
    Postgres::start(Durability::Volatile)
}

/// Starts a PostgreSQL server whose acknowledged writes survive [`Postgres::kill`].
pub fn durable_postgres() -> Postgres {
    Postgres::start(Durability::Durable)
}

/// Returns the PostgreSQL server of this process, started on first use. For tests with their own
/// databases.
pub fn shared_postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(postgres)
}

/// Starts a MongoDB-compatible server without fsync: fast, but not crash-safe.
pub fn mongo() -> Mongo {
    Mongo::start(Durability::Volatile)
}

/// Starts a MongoDB-compatible server whose acknowledged writes survive [`Mongo::kill`].
pub fn durable_mongo() -> Mongo {
    Mongo::start(Durability::Durable)
}

/// Returns the MongoDB-compatible server of this process, started on first use. For tests with
/// their own databases.
pub fn shared_mongo() -> &'static Mongo {
    static SHARED: OnceLock<Mongo> = OnceLock::new();
    SHARED.get_or_init(mongo)
}

/// Starts a NATS server with `JetStream`, whose streams survive [`Nats::kill`].
pub fn nats() -> Nats {
    Nats::start()
}

/// Durability of acknowledged writes across a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    Volatile,
    Durable,
}

/// Returns a free port below the ephemeral range, so that no outgoing connection takes it while a
/// server is down. The port is reserved until this process ends.
pub fn free_port() -> u16 {
    /// A lock is held as long as its file is open.
    static PORT_LOCKS: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join("palisade-ports");
    std::fs::create_dir_all(&locks).expect("a temporary directory can be made");
    let random = uuid::Uuid::new_v4().as_u128();
    let mut candidates =
        (0..100).map(|n: u16| 20_000 + u16::try_from(random % 12_000).expect("below 12,000").wrapping_add(n * 97) % 12_000);
    let free = candidates.find_map(|port| {
        let lock = File::create(locks.join(port.to_string())).ok()?;
        lock.try_lock().ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some((port, lock))
    });
    let (port, lock) = free.expect("one of a hundred ports is free");
    PORT_LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    port
}
