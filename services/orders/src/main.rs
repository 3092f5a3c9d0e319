//! The orders service as a program of its own.

use std::process::ExitCode;

use palisade_middleware::{process::run, telemetry::TrustBoundary};
use palisade_orders::{Config, keys, start};

fn main() -> ExitCode {
    run("orders", "Orders and their saga over gRPC.", TrustBoundary::Internal, |config: Config, process| async move {
        let keys = keys(&config, &process)?;
        start(config, keys, &process)?;
        Ok(())
    })
}
