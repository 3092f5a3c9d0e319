//! Disposable servers with their own port and directory, removed with the test that started them.
//!
//! ```no_run
//! let postgres = palisade_tests::servers::shared_postgres();
//! let url = postgres.url("orders_test");
//! ```

use std::sync::OnceLock;

mod dns;
mod etcd;
mod mongo;
mod nats;
mod postgres;
mod prometheus;
mod redis;

pub use crate::free_port::free_port;
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
