//! The gateway as a program of its own.

use std::process::ExitCode;

use palisade_gateway::{Config, keys, start};
use palisade_middleware::{process::run, telemetry::TrustBoundary};

fn main() -> ExitCode {
    run("gateway", "The HTTP API of products and orders.", TrustBoundary::Public, |config: Config, process| async move {
        let keys = keys(&config, &process)?;
        start(&config, keys, &process)?;
        Ok(())
    })
}
