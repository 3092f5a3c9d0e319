//! What an operator may set of one upstream.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Connection, balance, connection};
use crate::{
    circuit_breaker,
    discovery::{self, UpstreamUrl},
    retry, tls,
};

/// One upstream service and how it is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it is: `http://127.0.0.1:5000` (`https://` if `tls.ca_file` is set), several addresses separated by commas; or who knows: `dns://products:5000` (A and AAAA records),
    /// `srv://_products._tcp.example` (SRV records: those of the lowest priority, whatever their weights), both with `?server=ip:port` to name
    /// a resolver; `etcd://host:2379/palisade/products` (who has registered there).
    pub url: String,
    /// TLS towards it.
    pub tls: tls::UpstreamTls,
    /// The longest the handshakes of a connection may take, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How its connections are kept and tried again.
    pub connection: Connection,
    /// The longest one attempt may take until its last byte, in milliseconds.
    pub attempt_timeout_ms: u64,
    /// The longest a call may take with all its attempts, in milliseconds; less if its request has less time left.
    pub call_timeout_ms: u64,
    /// Calls in flight at once; more are refused. Below what the server's own adaptive limit lets run, so that one upstream that hangs does not
    /// take all of it; and at most as many for each address as its server lets a connection have (`server.http2.max_streams`, 256).
    pub max_in_flight: u32,
    /// When a call is tried again.
    pub retry: retry::Config,
    /// When calls stop.
    pub circuit_breaker: circuit_breaker::Config,
    /// How addresses are found that are not in `url` itself.
    pub discovery: discovery::Config,
    /// How one of several addresses is chosen.
    pub balance: balance::Config,
    /// When one of several addresses is left alone; a single one has no breaker but `breaker`.
    #[serde(deserialize_with = "balance::read_breaker")]
    #[schemars(with = "circuit_breaker::Config")]
    pub outlier_detection: circuit_breaker::Config,
}

impl Default for Config {
    /// Everything but `url`, which has no sensible default.
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

/// A value that makes no sense; the text begins with its key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    /// Not an address.
    #[error("url must be http://host:port, or several separated by commas, or begin with dns://, srv:// or etcd://, not {0:?}")]
    Url(String),
    /// `https` without an authority to check it by, or `http` though there is one.
    #[error("url must be https:// if tls.ca_file is set, and else http://, not {0:?}")]
    Scheme(String),
    /// Of TLS.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Not a registry.
    #[error(transparent)]
    Upstream(#[from] discovery::InvalidUpstream),
    /// Of the search for addresses.
    #[error("discovery.{0}")]
    Discovery(#[from] discovery::InvalidConfig),
    /// No place to send HTTP requests to.
    #[error("an origin must be http:// or https:// with a host, not {0}:")]
    Origin(String),
    /// Of TLS or of a proxy, most likely.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// A number out of its range.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
    /// Of the connections.
    #[error("connection.{0}")]
    Connection(#[from] connection::InvalidConfig),
    /// Of the retries.
    #[error("retry.{0}")]
    Retry(#[from] retry::InvalidConfig),
    /// Of the breaker.
    #[error("breaker.{0}")]
    Breaker(circuit_breaker::InvalidConfig),
    /// Of the choice between addresses.
    #[error("balance.{0}")]
    Balance(#[from] balance::InvalidConfig),
    /// Of the breakers of single addresses.
    #[error("endpoint_breaker.{0}")]
    EndpointBreaker(circuit_breaker::InvalidConfig),
}

impl Config {
    /// The defaults for the upstream at `url`, or at several separated by commas.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// The same with `url` where it has none of its own.
    #[must_use]
    pub fn with_default_url(mut self, url: &str) -> Self {
        if self.url.is_empty() {
            url.clone_into(&mut self.url);
        }
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

    pub(crate) fn upstream(&self) -> Result<UpstreamUrl, InvalidConfig> {
        UpstreamUrl::parse(&self.url)
    }
}

/// What any hop has: an error for the first of these that is 0.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::address::Address;

    #[test]
    fn an_error_names_the_key() {
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
        assert!(text(Config { connection, ..valid.clone() }).starts_with("connection.max_pause_ms "));
        let retry = retry::Config { max_attempts: 1, ..retry::Config::default() };
        assert!(text(Config { retry, ..valid.clone() }).starts_with("retry.max_attempts "));
        let breaker = circuit_breaker::Config { probes: 0, ..circuit_breaker::Config::default() };
        assert!(text(Config { circuit_breaker: breaker.clone(), ..valid.clone() }).starts_with("breaker.probes "));
        assert!(text(Config { outlier_detection: breaker, ..valid.clone() }).starts_with("endpoint_breaker.probes "));
        let discovery = discovery::Config { min_refresh_ms: 0, ..discovery::Config::default() };
        assert!(text(Config { discovery, ..valid.clone() }).starts_with("discovery.min_refresh_ms "));
        let balance = balance::Config { decay_ms: 0, ..balance::Config::default() };
        assert!(text(Config { balance, ..valid }).starts_with("balance.decay_ms "));
    }

    #[test]
    fn several_addresses_are_separated_by_commas() {
        let upstream = Config::at("http://a:1, http://b:2,http://a:1").upstream().unwrap();
        let UpstreamUrl::List(addresses) = upstream else { panic!("not a list") };
        assert_eq!(addresses.iter().map(Address::name).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn the_breaker_of_an_endpoint_has_defaults_of_its_own() {
        let config: Config = serde_json::from_str(r#"{"endpoint_breaker": {"open_ms": 700}}"#).unwrap();
        assert_eq!(config.outlier_detection, circuit_breaker::Config { open_ms: 700, ..Config::default().outlier_detection });
        let help = crate::config::command::<Config>("test", "A test.").render_long_help().to_string();
        for (failures, key) in [(0, "BREAKER"), (5, "ENDPOINT_BREAKER")] {
            let end = format!("[default: {failures}] [env: PALISADE_{key}__CONSECUTIVE_FAILURES]");
            assert!(help.contains(&end), "{end} in {help}");
        }
    }
}
