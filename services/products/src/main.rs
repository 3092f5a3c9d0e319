//! The products service as a separate process.

use std::process::ExitCode;

use palisade_events::NAMING;
use palisade_middleware::{process::run, telemetry::TrustBoundary};
use palisade_products::{Config, start, verifier};

fn main() -> ExitCode {
    run(
        NAMING,
        "products",
        "Products service: catalogue and stock over gRPC.",
        TrustBoundary::Internal,
        |config: Config, process| async move {
            let verifier = verifier(&config, &process)?;
            start(&config, verifier, &process)?;
            Ok(())
        },
    )
}
