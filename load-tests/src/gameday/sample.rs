//! Every request that k6 made, as it wrote it down.

use std::{fs, path::Path};

use serde_json::Value;

use crate::unix_time;

/// One answered request.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// When it was answered, seconds since 1970.
    pub(super) at: f64,
    /// Method and route.
    pub(super) name: String,
    /// Its HTTP status; 0 if there was no answer.
    pub(super) status: u16,
    /// How long it took, seconds.
    pub(super) took: f64,
}

/// The samples in k6's JSON lines.
pub(super) fn read(path: &Path) -> Vec<Sample> {
    let text = fs::read_to_string(path).expect("k6 wrote its samples");
    text.lines().filter_map(|line| sample(&serde_json::from_str(line).ok()?)).collect()
}

fn sample(line: &Value) -> Option<Sample> {
    if line["type"] != "Point" || line["metric"] != "http_req_duration" {
        return None;
    }
    let (data, tags) = (&line["data"], &line["data"]["tags"]);
    Some(Sample {
        at: unix_time::parse(data["time"].as_str()?)?,
        name: tags["name"].as_str()?.to_owned(),
        status: tags["status"].as_str()?.parse().ok()?,
        took: data["value"].as_f64()? / 1_000.0,
    })
}
