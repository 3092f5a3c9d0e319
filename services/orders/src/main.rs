//! Binary of the orders service.

use std::process::ExitCode;

use palisade_events::NAMING;
use palisade_middleware::{process::run, telemetry::TrustBoundary};
use palisade_orders::{Config, keys, start};

fn main() -> ExitCode {
    run(
        NAMING,
        "orders",
        "Orders service: orders and their saga, over gRPC.",
        TrustBoundary::Internal,
        |config: Config, process| async move {
            let keys = keys(&config, &process)?;
            start(config, keys, &process)?;
            Ok(())
        },
    )
}
