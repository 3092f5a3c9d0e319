//! Settings of traces and logs.

use std::path::PathBuf;

use palisade_resilience::setting::Invalid;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    exporter::{CA_FILE, Exporter, Protocol},
    log,
};
use crate::config::{SecretUrl, Validate};

/// Traces and logs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// OTLP endpoint for traces, e.g. `http://localhost:4317` or `https://…`. With `http/protobuf`
    /// it is the base URL, e.g. `http://localhost:4318`, and `/v1/traces` is appended. Without it
    /// trace ids are created and propagated, but no span is exported.
    pub otlp_endpoint: Option<SecretUrl>,
    /// OTLP protocol: `grpc` or `http/protobuf`.
    pub otlp_protocol: Protocol,
    /// PEM file with the CA certificates of an `https://` endpoint. Default: those of the system.
    pub otlp_ca_file: Option<PathBuf>,
    /// Sampling ratio of new traces, 0 to 1. Sampling decisions of internal callers are followed,
    /// those of external callers are not.
    pub sample_ratio: f64,
    /// Whether failed and slow requests are exported at any ratio, up to 50 a second per code.
    pub keep_failed_traces: bool,
    /// Maximum number of traces of other services that are held until their outcome is known. A
    /// newer trace replaces the oldest. About 1 KiB each.
    pub held_traces: usize,
    /// Maximum number of spans queued for export. More spans are dropped and counted.
    pub span_queue: usize,
    /// `deployment.environment.name` of all spans.
    pub environment: String,
    /// Log filter, e.g. `info,palisade_orders=debug`.
    pub log_filter: String,
    /// Log format: `json`, `human`, or `auto` (human on a terminal).
    pub log_format: log::LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_protocol: Protocol::Grpc,
            otlp_ca_file: None,
            sample_ratio: 0.1,
            keep_failed_traces: true,
            held_traces: 4_096,
            span_queue: 8_192,
            environment: "development".to_owned(),
            log_filter: "info".to_owned(),
            log_format: log::LogFormat::Auto,
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Invalid> {
        let mut invalid = Vec::new();
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            invalid.push(Invalid::new("telemetry.sample_ratio", "must be between 0 and 1"));
        }
        if !(1..=1_000_000).contains(&self.held_traces) {
            invalid.push(Invalid::new("telemetry.held_traces", "must be between 1 and 1000000"));
        }
        if self.span_queue == 0 {
            invalid.push(Invalid::new("telemetry.span_queue", "must be greater than 0"));
        }
        if log::filter(&self.log_filter).is_err() {
            invalid.push(Invalid::new(
                "telemetry.log_filter",
                format!("{:?} is not a log filter such as info,palisade_orders=debug", self.log_filter),
            ));
        }
        invalid
    }

    fn check(&self) -> Vec<Invalid> {
        self.exporter().map(drop).err().into_iter().collect()
    }
}

impl Config {
    /// Returns the exporter of spans, if an endpoint is set.
    pub(super) fn exporter(&self) -> Result<Option<Exporter>, Invalid> {
        let Some(url) = &self.otlp_endpoint else {
            return if self.otlp_ca_file.is_some() { Err(Invalid::new(CA_FILE, "has no effect without otlp_endpoint")) } else { Ok(None) };
        };
        Exporter::new(self.otlp_protocol, url.expose(), self.otlp_ca_file.as_deref()).map(Some)
    }
}
