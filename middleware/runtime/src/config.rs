//! Configuration: defaults < TOML file < environment < flags. Unknown keys are errors. All errors
//! are reported at once, each with its key, and without the values of secrets.

mod bounds;
mod environment;
mod extract;
mod file;
mod schema;
mod secret;
mod tree;

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use palisade_resilience::{naming, setting::Invalid};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use self::{schema::Keys, tree::Tree};

pub use secret::{SecretUrl, optional_secret_url, secret_url};

/// Invalid configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown flag or help request. clap provides the text and the exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Unknown keys, invalid values and violated rules: all of them.
    #[error("{}", List(.0))]
    Invalid(Vec<Invalid>),
}

impl Error {
    /// Creates an error for `key`.
    pub fn rule(key: &'static str, rule: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid::new(key, rule)])
    }
}

/// Several errors, one per line.
struct List<'a>(&'a [Invalid]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [only] => only.fmt(f),
            all => all.iter().try_for_each(|invalid| write!(f, "\n  {invalid}")),
        }
    }
}

/// Configuration with rules beyond its types.
pub trait Validate {
    /// Keys and sections that have no effect in this program, each with the reason. Setting one is
    /// an error.
    const INEFFECTIVE: &'static [(&'static str, &'static str)] = &[];

    /// Returns all violations of the rules that types cannot express. Reads no file.
    fn validate(&self) -> Vec<Invalid>;

    /// Returns all reasons for which the program could not start with this configuration: loads
    /// keys and certificates, parses URLs, opens no connection.
    fn check(&self) -> Vec<Invalid> {
        Vec::new()
    }
}

/// Returns an error for each value that is 0.
pub fn not_zero<const N: usize>(values: [(&'static str, u64); N]) -> impl Iterator<Item = Invalid> {
    values.into_iter().filter(|(_, value)| *value == 0).map(|(key, _)| Invalid::new(key, "must be greater than 0"))
}

/// Converts an error whose text begins with the key of a setting in `section`.
pub fn in_section(section: &str, error: &impl fmt::Display) -> Invalid {
    let text = error.to_string();
    let (key, rule) = text.split_once(' ').unwrap_or((&text, "is invalid"));
    Invalid::new(key.trim_end_matches(':').to_owned(), rule).in_section(section)
}

/// Returns an error for each listener whose address another one has.
pub fn distinct_listeners(listeners: &[(&'static str, SocketAddr)]) -> Vec<Invalid> {
    let clashes = |a: &SocketAddr, b: &SocketAddr| {
        a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    };
    let earlier = |index: usize, address: &SocketAddr| listeners[..index].iter().find(|(_, other)| clashes(other, address));
    let clash = |(index, (key, address)): (usize, &(&'static str, SocketAddr))| {
        let (other, _) = earlier(index, address)?;
        Some(Invalid::new(*key, format!("{address} is also the address of {other}")))
    };
    listeners.iter().enumerate().filter_map(clash).collect()
}

/// Command given by the command line.
#[derive(Debug)]
pub enum Invocation<T> {
    /// Run with this configuration.
    Run(T),
    /// `--check-config`: the process could start with this configuration.
    Check(T),
    /// `--help-all`: print this text.
    Help(String),
    /// `--health-check`: query readiness at the admin port of this configuration.
    HealthCheck(T),
}

/// Command with the warnings about its configuration.
#[derive(Debug)]
pub struct Loaded<T> {
    /// Command.
    pub invocation: Invocation<T>,
    /// Texts for the log.
    pub warnings: Vec<String>,
}

/// Builds the command line for configuration `T`: `--config`, `--check-config`, `--health-check`
/// and a flag per key. `--help` shows the keys that `common` lists; `--help-all` shows all,
/// grouped by section.
pub fn command<T: JsonSchema>(name: &'static str, about: &'static str, common: &[&str]) -> Command {
    build::<T>(name, about, false, |key| common.contains(&key)).after_help(format!(
        "Most used settings only; {name} --help-all lists all of them, docs/configuration.md explains them.\n\
         Every flag is also a TOML key (--store-url is url in [store]) and an environment variable {}…",
        naming::current().environment_prefix
    ))
}

fn build<T: JsonSchema>(name: &'static str, about: &'static str, grouped: bool, is_shown: impl Fn(&str) -> bool) -> Command {
    let switch = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let mut command = Command::new(name)
        .about(about)
        .version(env!("CARGO_PKG_VERSION"))
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("TOML file with any of the keys"),
        )
        .arg(switch("check-config", "Validate the configuration and exit"))
        .arg(switch("health-check", "Check the readiness of the running process and exit"))
        .arg(switch("help-all", "Print help with all settings, grouped by section"));
    for key in Keys::of::<T>().plain() {
        let section = key.path.split_once('.').map_or("general", |(section, _)| section).to_owned();
        let arg = Arg::new(key.path.clone()).long(key.flag()).value_name(key.kind.name()).help(key.help());
        // A value may begin with a hyphen, such as a secret or a negative number.
        command = command.arg(arg.allow_hyphen_values(true).hide(!is_shown(&key.path)).help_heading(if grouped {
            format!("Settings: {section}")
        } else {
            "Settings".to_owned()
        }));
    }
    command
}

/// Returns the text of `--help-all`.
pub fn help_all<T: JsonSchema>(name: &'static str, about: &'static str) -> String {
    build::<T>(name, about, true, |_| true).after_help(schema::after_help(&Keys::of::<T>())).render_help().to_string()
}

/// Markdown reference of all keys of `T`; headings start at `level`.
pub fn reference<T: JsonSchema>(level: usize) -> String {
    schema::markdown(&Keys::of::<T>(), level)
}

/// Returns path and kind of every setting of `T`: `INTEGER`, `NUMBER`, `BOOL`, `TEXT`, `JSON` or
/// its words separated by `|`. A user-defined name is `<name>`.
pub fn settings<T: JsonSchema>() -> Vec<(String, String)> {
    Keys::of::<T>().all().map(|key| (key.path.clone(), key.kind.name())).collect()
}

/// Loads the configuration from the flags `matches` (of [`command`]), the environment of the
/// process and the file.
pub fn load<T: DeserializeOwned + JsonSchema + Validate>(matches: &ArgMatches) -> Result<Loaded<T>, Error> {
    let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    load_from(matches, environment)
}

/// As [`load`] with the environment `environment`.
pub fn load_from<T: DeserializeOwned + JsonSchema + Validate>(
    matches: &ArgMatches,
    environment: impl IntoIterator<Item = (String, OsString)>,
) -> Result<Loaded<T>, Error> {
    let keys = Keys::of::<T>();
    let (mut tree, mut invalid) = (Tree::default(), Vec::new());
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        file::merge(path, &keys, &mut tree, &mut invalid);
    }
    let warnings = environment::merge(environment, naming::current().environment_prefix, &keys, &mut tree, &mut invalid);
    for key in keys.plain() {
        if let Some(text) = matches.try_get_one::<String>(&key.path).ok().flatten() {
            tree.next_layer();
            tree.set_text(key, &key.path, text, &format!("--{}", key.flag()), &mut invalid);
        }
    }
    tree.check_ineffective(T::INEFFECTIVE, &mut invalid);
    let is_health_check = matches.get_flag("health-check");
    let config = extract::extract::<T>(&mut tree, &keys, &mut invalid, !is_health_check);
    let config = config.filter(|_| invalid.is_empty()).ok_or(Error::Invalid(invalid))?;
    let invocation = if matches.get_flag("check-config") {
        Invocation::Check(config)
    } else if is_health_check {
        Invocation::HealthCheck(config)
    } else {
        Invocation::Run(config)
    };
    Ok(Loaded { invocation, warnings })
}

/// Returns the numeric keys of `T` and their maximum, for tests. Keys with a user-defined part are
/// left out.
pub fn numeric_keys<T: JsonSchema>() -> Vec<(String, u64)> {
    let keys = Keys::of::<T>();
    keys.plain().filter(|key| key.kind.is_numeric()).map(|key| (key.path.clone(), bounds::maximum(&key.path))).collect()
}

/// As [`load`] with the arguments of the process.
pub fn from_args<T: DeserializeOwned + JsonSchema + Validate>(
    (name, about, common): (&'static str, &'static str, &[&str]),
    args: impl IntoIterator<Item = OsString>,
) -> Result<Loaded<T>, Error> {
    let matches = command::<T>(name, about, common).try_get_matches_from(args)?;
    if matches.get_flag("help-all") {
        return Ok(Loaded { invocation: Invocation::Help(help_all::<T>(name, about)), warnings: Vec::new() });
    }
    load(&matches)
}

#[cfg(test)]
mod tests;
