//! Throw-away servers, each with a port and a directory of its own, gone with the test that started it.
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

/// A Postgres server that does not sync to disk: fast, but never crash it.
pub fn postgres() -> Postgres {
    Postgres::start(Durability::Volatile)
}

/// A Postgres server whose acknowledged writes survive [`Postgres::kill`].
pub fn durable_postgres() -> Postgres {
    Postgres::start(Durability::Durable)
}

/// The Postgres server of this process, started on first use. For tests that disturb only databases of their own.
pub fn shared_postgres() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(postgres)
}

/// A MongoDB-compatible server that does not sync to disk: fast, but never crash it.
pub fn mongo() -> Mongo {
    Mongo::start(Durability::Volatile)
}

/// A MongoDB-compatible server whose acknowledged writes survive [`Mongo::kill`].
pub fn durable_mongo() -> Mongo {
    Mongo::start(Durability::Durable)
}

/// The MongoDB-compatible server of this process, started on first use. For tests that disturb only databases of their own.
pub fn shared_mongo() -> &'static Mongo {
    static SHARED: OnceLock<Mongo> = OnceLock::new();
    SHARED.get_or_init(mongo)
}

/// A NATS server with `JetStream`, whose streams survive [`Nats::kill`].
pub fn nats() -> Nats {
    Nats::start()
}

/// Whether acknowledged writes survive a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    Volatile,
    Durable,
}

/// A free port below the ephemeral range, so that no outgoing connection takes it while the server is down. Until this process ends no other
/// test is given it.
pub fn free_port() -> u16 {
    /// Locks are held as long as their files are open.
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
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
    let (port, lock) = free.expect("a free port among a hundred");
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    port
}
