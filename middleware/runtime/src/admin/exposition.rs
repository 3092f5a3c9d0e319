//! `GET /metrics`: content negotiation between the Prometheus text format and OpenMetrics, and
//! compression.

use std::io::Write;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, header};

use crate::{
    content_negotiation::{accepts_gzip, quality},
    telemetry::{Format, Telemetry},
};

const TEXT: &str = "text/plain; version=0.0.4";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Route of the metrics of `service`.
pub(super) fn route(service: &'static str, telemetry: Telemetry) -> Router {
    let metrics = async move |State(telemetry): State<Telemetry>, headers: HeaderMap| {
        let prefers_openmetrics = quality(&headers, header::ACCEPT, "application/openmetrics-text")
            .is_some_and(|quality| quality > 0.0 && quality >= quality_of_text(&headers));
        let format = if prefers_openmetrics { Format::OpenMetrics } else { Format::Text };
        let compress = accepts_gzip(&headers);
        // Rendering a large registry takes milliseconds.
        tokio::task::spawn_blocking(move || respond(&telemetry.render(service, format), format, compress)).await.unwrap_or_default()
    };
    Router::new().route("/metrics", get(metrics)).with_state(telemetry)
}

fn respond(text: &str, format: Format, compress: bool) -> Response {
    let content_type = match format {
        Format::Text => TEXT,
        Format::OpenMetrics => OPENMETRICS,
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::VARY, "accept, accept-encoding")];
    match compress.then(|| gzip(text)) {
        Some(Ok(compressed)) => (headers, [(header::CONTENT_ENCODING, "gzip")], compressed).into_response(),
        // Compression in memory does not fail.
        Some(Err(_)) | None => (headers, text.to_owned()).into_response(),
    }
}

fn gzip(text: &str) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}

fn quality_of_text(headers: &HeaderMap) -> f64 {
    quality(headers, header::ACCEPT, "text/plain").unwrap_or_default()
}
