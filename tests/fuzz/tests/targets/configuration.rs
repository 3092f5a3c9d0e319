//! Settings from the environment and from a file.

use std::{ffi::OsString, fs};

use palisade_gateway::Config;
use palisade_middleware::config::{self, Error, Loaded};
use tempfile::tempdir;

/// Text that no error may repeat.
const SECRET: &str = "hunter2-hunter2";
/// Setting of a secret URL.
const SECRET_SETTING: &str = "PALISADE_CACHE__REDIS_URL";

fn load(arguments: &[&str], environment: Vec<(String, OsString)>) -> Result<Loaded<Config>, Error> {
    let matches = config::command::<Config>("gateway", "", &[]).try_get_matches_from([&["gateway"], arguments].concat()).unwrap();
    config::load_from(&matches, environment)
}

/// Any settings are accepted or refused with the names of their keys, and without a secret.
fn check(loaded: &Result<Loaded<Config>, Error>) {
    match loaded {
        Ok(_) => {}
        Err(Error::Usage(error)) => panic!("{error}"),
        Err(Error::Invalid(all)) => {
            assert!(!all.is_empty());
            let text = loaded.as_ref().err().unwrap().to_string();
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

/// Each line is a variable. Those without the prefix have no effect.
pub(crate) fn environment(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let variables: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let with_prefix = |prefix: &str| -> Vec<(String, OsString)> {
        variables.iter().map(|(name, value)| (format!("{prefix}{name}"), (*value).into())).collect()
    };
    let error = |environment| load(&[], environment).err().map(|error| error.to_string());
    assert_eq!(error(with_prefix("OTHER_")), error(Vec::new()), "variables of other programs have no effect");
    let mut environment = with_prefix("PALISADE_");
    environment.push((SECRET_SETTING.to_owned(), format!("redis://:{SECRET}@localhost").into()));
    let loaded = load(&[], environment);
    check(&loaded);
    let has_unknown = variables.iter().any(|(name, _)| name.starts_with("NO_SUCH_SETTING_AT_ALL"));
    assert!(!has_unknown || loaded.is_err(), "an unknown setting is an error");
}

/// The input is a TOML file.
pub(crate) fn file(input: &[u8]) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("gateway.toml");
    fs::write(&path, input).unwrap();
    let loaded = load(&["--config", path.to_str().unwrap()], Vec::new());
    check(&loaded);
    if std::str::from_utf8(input).is_err() {
        assert!(loaded.is_err());
    }
}
