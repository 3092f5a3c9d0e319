//! The gateway as a separate process.

use std::process::ExitCode;

use palisade_events::NAMING;
use palisade_gateway::{Config, keys, start};
use palisade_middleware::{process::run, telemetry::TrustBoundary};

fn main() -> ExitCode {
    run(NAMING, "gateway", "HTTP gateway of products and orders.", TrustBoundary::Public, |config: Config, process| async move {
        let keys = keys(&config, &process)?;
        start(&config, keys, &process)?;
        Ok(())
    })
}
