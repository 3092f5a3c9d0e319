//! Request samples of k6, from its JSON output, and Unix time, the common clock of k6, Prometheus
//! and the tests.

use std::{fs, path::Path};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Finished request.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Completion time, Unix seconds.
    pub(super) completed_at: f64,
    /// Method and route.
    pub(super) name: String,
    /// HTTP status, 0 without a response.
    pub(super) status: u16,
    /// Duration, seconds.
    pub(super) duration: f64,
}

/// Reads the samples from k6's JSON lines.
pub(super) fn read(path: &Path) -> Vec<Sample> {
    let text = fs::read_to_string(path).expect("k6 wrote its samples");
    text.lines().filter_map(|line| sample(&serde_json::from_str(line).ok()?)).collect()
}

/// Returns the current Unix time, seconds.
#[expect(clippy::disallowed_methods, reason = "external observers only have the wall clock")]
pub(super) fn now() -> f64 {
    unix_seconds(OffsetDateTime::now_utc())
}

fn sample(line: &Value) -> Option<Sample> {
    if line["type"] != "Point" || line["metric"] != "http_req_duration" {
        return None;
    }
    let (data, tags) = (&line["data"], &line["data"]["tags"]);
    Some(Sample {
        completed_at: unix_seconds(OffsetDateTime::parse(data["time"].as_str()?, &Rfc3339).ok()?),
        name: tags["name"].as_str()?.to_owned(),
        status: tags["status"].as_str()?.parse().ok()?,
        duration: data["value"].as_f64()? / 1_000.0,
    })
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 are below 2^52")]
fn unix_seconds(time: OffsetDateTime) -> f64 {
    (time.unix_timestamp_nanos() / 1_000) as f64 / 1e6
}
