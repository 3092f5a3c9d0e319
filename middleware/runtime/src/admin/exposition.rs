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
use http::{HeaderMap, HeaderName, header};

use crate::telemetry::{Format, Telemetry};

const TEXT: &str = "text/plain; version=0.0.4";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Route of the metrics of `service`.
pub(super) fn route(service: &'static str, telemetry: Telemetry) -> Router {
    let metrics = async move |State(telemetry): State<Telemetry>, headers: HeaderMap| {
        let prefers_openmetrics = quality(&headers, header::ACCEPT, "application/openmetrics-text")
            .is_some_and(|quality| quality > 0.0 && quality >= quality_of_text(&headers));
        let format = if prefers_openmetrics { Format::OpenMetrics } else { Format::Text };
        let compress = quality(&headers, header::ACCEPT_ENCODING, "gzip").is_some_and(|quality| quality > 0.0);
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

/// Returns the highest quality value (RFC 9110 §12.4.2) that the header gives `value`.
fn quality(headers: &HeaderMap, name: HeaderName, value: &str) -> Option<f64> {
    let lists = headers.get_all(name);
    let items = lists.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(','));
    let qualities = items.filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let is_named = parts.next()?.eq_ignore_ascii_case(value);
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |quality| quality.parse().ok());
        quality.filter(|_| is_named)
    });
    qualities.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_is_read_from_accept_headers() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, openmetrics, text) in [
            (prometheus_2, Some(1.0), Some(0.5)),
            ("text/plain", None, Some(1.0)),
            ("Application/OpenMetrics-Text; q=0", Some(0.0), None),
            ("application/openmetrics-text;q=nonsense", None, None),
            ("", None, None),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(quality(&headers, header::ACCEPT, "application/openmetrics-text"), openmetrics, "{accept}");
            assert_eq!(quality(&headers, header::ACCEPT, "text/plain"), text, "{accept}");
        }
    }
}
