//! What an operator may set of the choice between several addresses.

use figment::{Figment, providers::Serialized, value::Dict};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::circuit_breaker;

/// How one of several addresses is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// After this many milliseconds a third is left of what an endpoint's answers said about its speed, or a failure about its health.
    pub decay_ms: u64,
    /// The largest share of the endpoints that may be left out at once because they fail, above 0 and at most 1; one may always be.
    pub max_ejected: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { decay_ms: 10_000, max_ejected: 0.5 }
    }
}

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(&'static str);

impl Config {
    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if self.decay_ms == 0 {
            return Err(InvalidConfig("decay_ms must be at least 1"));
        }
        if self.max_ejected > 0.0 && self.max_ejected <= 1.0 {
            return Ok(());
        }
        Err(InvalidConfig("max_ejected must be above 0 and at most 1"))
    }
}

/// The defaults of an endpoint's breaker: there are others to go to, so it opens sooner and tries again sooner than a target's. Few probes,
/// because each is somebody's call that would have fared better elsewhere; one that fails is enough. A restart takes seconds, and a probe that
/// comes too early costs one retry.
pub(in crate::client) fn outlier_detection_defaults() -> circuit_breaker::Config {
    circuit_breaker::Config { consecutive_failures: 5, open_ms: 1_000, max_open_ms: 5_000, probes: 2, ..circuit_breaker::Config::default() }
}

/// Reads the configuration of an endpoint's breaker: what is not given is as in [`breaker`], not as in a target's.
pub(in crate::client) fn read_breaker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<circuit_breaker::Config, D::Error> {
    let overrides = Dict::deserialize(deserializer)?;
    let merged = Figment::from(Serialized::defaults(outlier_detection_defaults())).merge(Serialized::defaults(overrides));
    merged.extract().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_key() {
        let text = |config: Config| config.validate().unwrap_err().to_string();
        assert!(text(Config { decay_ms: 0, ..Config::default() }).starts_with("decay_ms "));
        for share in [0.0, 1.1, f64::NAN] {
            assert!(text(Config { max_ejected: share, ..Config::default() }).starts_with("max_ejected "), "{share}");
        }
        assert_eq!((Config::default().validate(), outlier_detection_defaults().validate()), (Ok(()), Ok(())));
    }

    #[test]
    fn a_section_in_part_keeps_the_defaults_of_an_endpoint() {
        let read = |json: &str| read_breaker(&mut serde_json::Deserializer::from_str(json));
        assert_eq!(read(r#"{"open_ms": 700}"#).unwrap(), circuit_breaker::Config { open_ms: 700, ..outlier_detection_defaults() });
        for (json, key) in [(r#"{"open_mss": 1}"#, "open_mss"), (r#"{"open_ms": "soon"}"#, "open_ms")] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
