//! Telemetry of programs that install none.

use std::sync::Arc;

use opentelemetry_sdk::trace::SdkTracerProvider;

use super::{Telemetry, log, process};

impl Telemetry {
    /// Creates telemetry that records nothing, for programs and simulations without installed
    /// telemetry. Requires a Tokio runtime.
    pub fn detached() -> Self {
        let (writer, guard) = log::writer();
        Self {
            metrics: Arc::new([]),
            process: process::Process::this(),
            traces: SdkTracerProvider::default(),
            recent: None,
            dropped_records: writer.error_counter(),
            log_filter: log::Reloadable::detached(),
            _log: Arc::new(guard),
        }
    }
}
