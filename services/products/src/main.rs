//! The products service as a program of its own.

use std::process::ExitCode;

use palisade_middleware::{process::run, telemetry::TrustBoundary};
use palisade_products::{Config, start, verifier};

fn main() -> ExitCode {
    run("products", "Products and their stock over gRPC.", TrustBoundary::Internal, |config: Config, process| async move {
        let verifier = verifier(&config, &process)?;
        start(config, verifier, &process).await?;
        Ok(())
    })
}
