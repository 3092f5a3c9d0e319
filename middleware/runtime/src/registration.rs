//! Registration of a service in etcd, tied to its readiness and to the shutdown of the process.

use std::net::SocketAddr;

use palisade_discovery::registration::Registration;

use crate::{health::Readiness, process::Process};

pub use palisade_discovery::registration::{Config, InvalidConfig};

/// Registers the service that listens on `listen` for the lifetime of the process, if `config`
/// enables it. `readiness` decides when to register, and shows the registration as a check.
pub fn start(
    service: &'static str,
    config: &Config,
    listen: SocketAddr,
    readiness: &Readiness,
    process: &Process,
) -> Result<(), InvalidConfig> {
    let Some(registration) = Registration::new(service, config, listen)? else { return Ok(()) };
    let status = registration.subscribe();
    // Not required for readiness: clients that already know the service still call it.
    readiness.watch("etcd", false, process.shutdown.clone(), move || {
        let registered = *status.borrow();
        async move { if registered { Ok(()) } else { Err("not registered in etcd".to_owned()) } }
    });
    let mut ready = readiness.subscribe();
    process.spawn_registration(|shutdown| async move {
        if matches!(shutdown.run_until_cancelled(ready.wait_for(|ready| *ready)).await, Some(Ok(_))) {
            registration.run(shutdown).await;
        }
    });
    Ok(())
}
