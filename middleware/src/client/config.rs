//! Settings of one upstream.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use figment::{Figment, providers::Serialized, value::Dict};
use palisade_discovery::{self as discovery, UpstreamUrl};
use palisade_resilience::{circuit_breaker, retry};
use palisade_transport::{
    client::{Connection, EndpointConfig, InvalidAddress, InvalidConnection, balance, http::InvalidOrigin},
    tls,
};

/// Client settings for one upstream service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address of the upstream or its discovery source. Static: `http://127.0.0.1:5000` (`https://`
    /// if `tls.ca_file` is set), several separated by commas. DNS A and AAAA records:
    /// `dns://products:5000`. DNS SRV records: `srv://_products._tcp.example`, lowest priority
    /// only, weights are ignored. Both DNS forms take `?server=ip:port` for a resolver. etcd:
    /// `etcd://host:2379/palisade/products`, the instances registered below this prefix.
    pub url: String,
    /// TLS to the upstream.
    pub tls: tls::UpstreamTls,
    /// Timeout for the TCP and TLS handshakes of a connection, milliseconds.
    pub connect_timeout_ms: u64,
    /// Keep-alive and reconnect backoff of connections.
    pub connection: Connection,
    /// Timeout of one attempt until its last byte, milliseconds.
    pub attempt_timeout_ms: u64,
    /// Timeout of a call with all its attempts, milliseconds. An earlier deadline of the incoming
    /// request takes precedence.
    pub call_timeout_ms: u64,
    /// Maximum calls in flight (bulkhead). Calls above it are rejected. Keep it below the server's
    /// own adaptive limit, so that one hanging upstream cannot use all of it, and at most
    /// `server.http2.max_streams` of the upstream (256) per address.
    pub max_in_flight: u32,
    /// Retry policy and budget.
    pub retry: retry::Config,
    /// Circuit breaker for this upstream.
    pub circuit_breaker: circuit_breaker::Config,
    /// Refresh of addresses from DNS, SRV or etcd.
    pub discovery: discovery::Config,
    /// Load balancing across several addresses.
    pub balance: balance::Config,
    /// Outlier detection: circuit breaker per address. Unused with a single address, which has only
    /// `circuit_breaker`.
    #[serde(deserialize_with = "read_breaker")]
    #[schemars(with = "circuit_breaker::Config")]
    pub outlier_detection: circuit_breaker::Config,
}

impl Default for Config {
    /// Defaults for everything except `url`, which has no sensible default.
    fn default() -> Self {
        Self {
            url: String::new(),
            tls: tls::UpstreamTls::default(),
            connect_timeout_ms: 1_000,
            connection: Connection::default(),
            attempt_timeout_ms: 5_000,
            call_timeout_ms: 9_000,
            max_in_flight: 128,
            retry: retry::Config::default(),
            circuit_breaker: circuit_breaker::Config::default(),
            discovery: discovery::Config::default(),
            balance: balance::Config::default(),
            outlier_detection: balance::outlier_detection_defaults(),
        }
    }
}

/// Invalid client setting; the text begins with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Invalid address.
    #[error(transparent)]
    Url(#[from] InvalidAddress),
    /// `https` without a CA file, or `http` with one.
    #[error("url must be https:// if tls.ca_file is set, and else http://, not {0:?}")]
    Scheme(String),
    /// Invalid TLS setting.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Invalid discovery source.
    #[error(transparent)]
    Upstream(#[from] discovery::InvalidUpstream),
    /// Invalid discovery setting.
    #[error("discovery.{0}")]
    Discovery(#[from] discovery::InvalidConfig),
    /// Invalid origin of an HTTP client.
    #[error(transparent)]
    Origin(#[from] InvalidOrigin),
    /// The HTTP client cannot be built, usually because of TLS or a proxy.
    #[error("cannot build the HTTP client")]
    Client(#[from] reqwest::Error),
    /// Value that must be positive.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Invalid connection setting.
    #[error("connection.{0}")]
    Connection(#[from] InvalidConnection),
    /// Invalid retry setting.
    #[error("retry.{0}")]
    Retry(#[from] retry::InvalidConfig),
    /// Invalid circuit breaker setting.
    #[error("circuit_breaker.{0}")]
    Breaker(circuit_breaker::InvalidConfig),
    /// Invalid load balancing setting.
    #[error("balance.{0}")]
    Balance(#[from] balance::InvalidConfig),
    /// Invalid outlier detection setting.
    #[error("outlier_detection.{0}")]
    EndpointBreaker(circuit_breaker::InvalidConfig),
}

impl Config {
    /// Default settings for the upstream at `url`, a single address or several separated by commas.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Fills in `url` if none is set.
    #[must_use]
    pub fn with_default_url(mut self, url: &str) -> Self {
        if self.url.is_empty() {
            url.clone_into(&mut self.url);
        }
        self
    }

    /// Fills in the connection settings for a server of this crate, see
    /// [`Connection::for_own_server`].
    #[must_use]
    pub fn for_own_server(mut self) -> Self {
        self.connection = self.connection.for_own_server();
        self
    }

    /// Checks every value against its range.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        if let UpstreamUrl::List(addresses) = self.upstream()?
            && addresses.iter().any(|address| address.is_secure() != self.tls.is_on())
        {
            return Err(InvalidConfig::Scheme(self.url.clone()));
        }
        check_limits([self.connect_timeout_ms, self.attempt_timeout_ms, self.call_timeout_ms], self.max_in_flight)?;
        self.connection.validate()?;
        self.retry.validate()?;
        self.circuit_breaker.validate().map_err(InvalidConfig::Breaker)?;
        self.discovery.validate()?;
        self.balance.validate()?;
        self.outlier_detection.validate().map_err(InvalidConfig::EndpointBreaker)
    }

    pub(super) fn upstream(&self) -> Result<UpstreamUrl, InvalidConfig> {
        Ok(UpstreamUrl::parse(&self.url)?)
    }

    pub(super) fn endpoints(&self) -> EndpointConfig {
        EndpointConfig {
            connect_timeout: Duration::from_millis(self.connect_timeout_ms),
            attempt_timeout: Duration::from_millis(self.attempt_timeout_ms),
            tls: self.tls.clone(),
            connection: self.connection.clone(),
            balance: self.balance.clone(),
            outlier_detection: self.outlier_detection.clone(),
        }
    }
}

/// Checks the limits common to gRPC and HTTP; returns an error for the first that is 0.
pub(super) fn check_limits([connect, attempt, call]: [u64; 3], max_in_flight: u32) -> Result<(), InvalidConfig> {
    let limits = [
        ("connect_timeout_ms", connect),
        ("attempt_timeout_ms", attempt),
        ("call_timeout_ms", call),
        ("max_in_flight", max_in_flight.into()),
    ];
    let zero = limits.into_iter().find(|(_, value)| *value == 0);
    zero.map_or(Ok(()), |(key, _)| Err(InvalidConfig::Zero(key)))
}

/// Deserializes `outlier_detection`. Missing keys take the endpoint defaults, not those of a
/// target's breaker.
fn read_breaker<'de, D: Deserializer<'de>>(deserializer: D) -> Result<circuit_breaker::Config, D::Error> {
    let overrides = Dict::deserialize(deserializer)?;
    let merged = Figment::from(Serialized::defaults(balance::outlier_detection_defaults())).merge(Serialized::defaults(overrides));
    merged.extract().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_transport::client::address::Address;

    #[test]
    fn config_error_names_setting() {
        let text = |config: Config| config.validate().unwrap_err().to_string();
        assert!(text(Config::default()).starts_with("url "));
        for url in ["127.0.0.1:5000", "http://127.0.0.1", "https://127.0.0.1:5000", "http://:5000", "http://127.0.0.1:0", "unix:/tmp/x"] {
            assert!(text(Config::at(url)).starts_with("url "), "{url}");
        }
        let valid = Config::at("http://[::1]:5000");
        assert!(valid.validate().is_ok());
        assert_eq!(
            text(Config::at("http://a:1,b:2")),
            "url must be http://host:port, or several separated by commas, or begin with dns://, srv:// or etcd://, not \"b:2\""
        );
        assert!(text(Config::at("http://a:1,")).starts_with("url "));
        assert_eq!(text(Config { max_in_flight: 0, ..valid.clone() }), "max_in_flight must be at least 1");
        let connection = Connection { max_connect_backoff_ms: 49, ..Connection::default() };
        assert!(text(Config { connection, ..valid.clone() }).starts_with("connection.max_connect_backoff_ms "));
        let retry = retry::Config { max_attempts: 1, ..retry::Config::default() };
        assert!(text(Config { retry, ..valid.clone() }).starts_with("retry.max_attempts "));
        let breaker = circuit_breaker::Config { probes: 0, ..circuit_breaker::Config::default() };
        assert!(text(Config { circuit_breaker: breaker.clone(), ..valid.clone() }).starts_with("circuit_breaker.probes "));
        assert!(text(Config { outlier_detection: breaker, ..valid.clone() }).starts_with("outlier_detection.probes "));
        let discovery = discovery::Config { min_refresh_ms: 0, ..discovery::Config::default() };
        assert!(text(Config { discovery, ..valid.clone() }).starts_with("discovery.min_refresh_ms "));
        let balance = balance::Config { decay_ms: 0, ..balance::Config::default() };
        assert!(text(Config { balance, ..valid }).starts_with("balance.decay_ms "));
    }

    #[test]
    fn url_lists_addresses_separated_by_commas() {
        let upstream = Config::at("http://a:1, http://b:2,http://a:1").upstream().unwrap();
        let UpstreamUrl::List(addresses) = upstream else { panic!("not a list") };
        assert_eq!(addresses.iter().map(Address::name).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn outlier_detection_has_its_own_defaults() {
        let config: Config = serde_json::from_str(r#"{"outlier_detection": {"open_ms": 700}}"#).unwrap();
        assert_eq!(config.outlier_detection, circuit_breaker::Config { open_ms: 700, ..Config::default().outlier_detection });
        let help = palisade_runtime::config::help_all::<Config>("test", "A test.");
        for (failures, key) in [(0, "CIRCUIT_BREAKER"), (5, "OUTLIER_DETECTION")] {
            let end = format!("[default: {failures}] [env: PALISADE_{key}__CONSECUTIVE_FAILURES]");
            assert!(help.contains(&end), "{end} in {help}");
        }
    }

    #[test]
    fn partial_section_keeps_endpoint_defaults() {
        let read = |json: &str| read_breaker(&mut serde_json::Deserializer::from_str(json));
        assert_eq!(read(r#"{"open_ms": 700}"#).unwrap(), circuit_breaker::Config { open_ms: 700, ..balance::outlier_detection_defaults() });
        for (json, key) in [(r#"{"open_mss": 1}"#, "open_mss"), (r#"{"open_ms": "soon"}"#, "open_ms")] {
            let error = read(json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
