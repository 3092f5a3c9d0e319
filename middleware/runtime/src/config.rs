//! Configuration: defaults < TOML file < environment < flags. Unknown keys are errors, and every
//! error names its key.

mod bounds;
mod schema;

use std::{ffi::OsString, path::PathBuf};

use clap::{Arg, ArgAction, Command};
use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use palisade_resilience::setting::Invalid;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::DeserializeOwned;

/// Prefix of environment variables. `__` separates levels.
pub const ENV_PREFIX: &str = "PALISADE_";

/// Invalid configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown flag or help request. clap provides the text and the exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// Unknown key or invalid value.
    #[error("{0}")]
    Invalid(Box<figment::Error>),
    /// The file given by `--config` cannot be read.
    #[error("cannot read the configuration file {0}")]
    NoFile(PathBuf, #[source] std::io::Error),
    /// Violated rule.
    #[error(transparent)]
    Rule(#[from] Invalid),
}

impl Error {
    /// Creates an error for `key`.
    pub fn rule(key: &'static str, rule: impl Into<String>) -> Self {
        Self::Rule(Invalid::new(key, rule))
    }
}

/// Configuration with rules beyond its types.
pub trait Validate {
    /// Checks the rules that types cannot express.
    fn validate(&self) -> Result<(), Error>;
}

/// Command given by the command line.
#[derive(Debug)]
pub enum Invocation<T> {
    /// Run with this configuration.
    Run(T),
    /// `--check-config`: check whether the process could start with this configuration.
    Check(T),
    /// `--help-all`: print this text.
    Help(String),
    /// `--health-check`: query readiness at the admin port of this configuration.
    HealthCheck(T),
}

/// Builds the command line for configuration `T`: `--config`, `--check-config`, `--health-check`
/// and a flag per key. `--help` shows the keys that `common` lists; `--help-all` shows all,
/// grouped by section.
pub fn command<T: JsonSchema>(name: &'static str, about: &'static str, common: &[&str]) -> Command {
    build::<T>(name, about, false, |key| common.contains(&key)).after_help(format!(
        "Most used settings only; {name} --help-all lists all of them, docs/configuration.md explains them.\n\
         Every flag is also a TOML key (--store-url is url in [store]) and an environment variable {ENV_PREFIX}…"
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
    for key in schema::keys::<T>().into_iter().filter(|key| !key.is_pattern()) {
        let section = key.path.split_once('.').map_or("general", |(section, _)| section).to_owned();
        let arg = Arg::new(key.path.clone()).long(key.flag()).value_name(key.kind.clone()).help(key.help());
        command = command.arg(arg.hide(!is_shown(&key.path)).help_heading(if grouped {
            format!("Settings: {section}")
        } else {
            "Settings".to_owned()
        }));
    }
    command
}

/// Returns the text of `--help-all`.
pub fn help_all<T: JsonSchema>(name: &'static str, about: &'static str) -> String {
    let keys = schema::keys::<T>();
    build::<T>(name, about, true, |_| true).after_help(schema::after_help(&keys)).render_help().to_string()
}

/// Markdown reference of all keys of `T`; headings start at `level`.
pub fn reference<T: JsonSchema>(level: usize) -> String {
    schema::markdown(&schema::keys::<T>(), level)
}

/// Loads the configuration from the flags `matches` (of [`command`]), the environment and the file.
pub fn load<T: DeserializeOwned + JsonSchema + Validate>(matches: &clap::ArgMatches) -> Result<Invocation<T>, Error> {
    let keys = schema::keys::<T>();
    let mut figment = Figment::new();
    if let Some(path) = matches.get_one::<PathBuf>("config") {
        std::fs::metadata(path).map_err(|error| Error::NoFile(path.clone(), error))?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let environment = Env::prefixed(ENV_PREFIX).split("__");
    let env_keys: Vec<String> = environment.iter().map(|(key, _)| key.as_str().to_ascii_lowercase()).collect();
    figment = clear_alternate_secret_keys(figment, &keys, |key| env_keys.iter().any(|set| set == key)).merge(environment);
    let flag = |key: &str| matches.try_get_one::<String>(key).ok().flatten();
    figment = clear_alternate_secret_keys(figment, &keys, |key| flag(key).is_some());
    for key in keys.iter().filter(|key| !key.is_pattern()) {
        if let Some(value) = flag(&key.path) {
            // Same grammar as environment variables: numbers and booleans are parsed, other values
            // are text.
            let value: figment::value::Value = value.parse().unwrap_or_else(|never| match never {});
            figment = figment.merge(Serialized::global(&key.path, value));
        }
    }
    bounds::check(&figment, &keys)?;
    let config: T = figment.extract().map_err(|error| Error::Invalid(Box::new(error)))?;
    config.validate()?;
    Ok(if matches.get_flag("check-config") {
        Invocation::Check(config)
    } else if matches.get_flag("health-check") {
        Invocation::HealthCheck(config)
    } else {
        Invocation::Run(config)
    })
}

/// A secret is given as `x`, or as `x_file` in a separate file. A layer that sets one clears the
/// other of lower layers.
fn clear_alternate_secret_keys(mut figment: Figment, keys: &[schema::Key], is_set: impl Fn(&str) -> bool) -> Figment {
    for file_key in keys.iter().filter(|key| !key.is_pattern()) {
        let Some(value_key) = file_key.path.strip_suffix("_file").filter(|plain| keys.iter().any(|key| key.path == *plain)) else {
            continue;
        };
        let cleared = match (is_set(value_key), is_set(&file_key.path)) {
            (true, false) => file_key.path.as_str(),
            (false, true) => value_key,
            _ => continue,
        };
        figment = figment.merge(Serialized::global(cleared, None::<String>));
    }
    figment
}

/// Returns a secret given directly or in a file, whose trailing newline is ignored. The arguments
/// are pairs of key and value.
pub fn secret(
    (key, value): (&'static str, &Option<SecretString>),
    (file_key, file): (&'static str, &Option<PathBuf>),
) -> Result<SecretString, Error> {
    match (value, file) {
        (Some(value), None) => Ok(value.clone()),
        (None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_owned().into()),
            Err(error) => Err(Error::rule(file_key, format!("cannot read {}: {error}", path.display()))),
        },
        _ => Err(Error::rule(key, format!("exactly one of {key} and {file_key} is required"))),
    }
}

/// Returns the numeric keys of `T` and their maximum, for tests. Keys with a user-defined part are
/// left out.
pub fn numeric_keys<T: JsonSchema>() -> Vec<(String, u64)> {
    let keys = schema::keys::<T>().into_iter().filter(|key| key.is_numeric() && !key.is_pattern());
    keys.map(|key| (key.path.clone(), bounds::maximum(&key.path))).collect()
}

/// As [`load`] with the arguments of the process.
pub fn from_args<T: DeserializeOwned + JsonSchema + Validate>(
    (name, about, common): (&'static str, &'static str, &[&str]),
    args: impl IntoIterator<Item = OsString>,
) -> Result<Invocation<T>, Error> {
    let matches = command::<T>(name, about, common).try_get_matches_from(args)?;
    if matches.get_flag("help-all") { Ok(Invocation::Help(help_all::<T>(name, about))) } else { load(&matches) }
}

#[cfg(test)]
mod tests;
