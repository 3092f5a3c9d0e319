//! Free TCP port for a server of a test, locked across processes.

use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

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
