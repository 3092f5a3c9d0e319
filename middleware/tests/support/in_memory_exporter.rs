//! In-memory span exporter.

use std::sync::Arc;

use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use parking_lot::Mutex;

/// Stores the finished spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept(pub(crate) Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().extend(batch);
        Ok(())
    }
}
