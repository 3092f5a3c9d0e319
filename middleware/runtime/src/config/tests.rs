use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

/// Test configuration.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Listen address.
    listen: String,
    store: Store,
    /// Stores by name.
    named: BTreeMap<String, Store>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Store {
    /// Maximum number of connections.
    limit: u32,
    /// Store URL.
    url: Option<String>,
    /// Interval of probes, milliseconds.
    probe_ms: u64,
    /// Share of probes.
    share: f64,
}

impl Default for Store {
    fn default() -> Self {
        Self { limit: 7, url: None, probe_ms: 1_000, share: 0.5 }
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Error> {
        if self.store.limit == 0 { Err(Error::rule("store.limit", "must not be 0")) } else { Ok(()) }
    }
}

fn load_args(args: &[&str]) -> Result<Invocation<Config>, Error> {
    from_args(("test", "A test.", &["listen"]), std::iter::once("test").chain(args.iter().copied()).map(OsString::from))
}

#[test]
fn flags_set_nested_keys() {
    let Invocation::Run(config) = load_args(&["--store-limit", "9", "--listen", "127.0.0.1:0"]).unwrap() else {
        panic!("expected the run command")
    };
    assert_eq!((config.store.limit, config.listen.as_str()), (9, "127.0.0.1:0"));
}

#[test]
fn value_with_commas_stays_text() {
    let Invocation::Run(config) = load_args(&["--store-url", "http://a:1,http://b:2"]).unwrap() else { panic!("expected the run command") };
    assert_eq!(config.store.url.as_deref(), Some("http://a:1,http://b:2"));
}

#[test]
fn config_errors_name_the_key() {
    let dir = std::env::temp_dir().join(format!("palisade-config-{}.toml", std::process::id()));
    std::fs::write(&dir, "[store]\nlimti = 3\n").unwrap();
    let error = load_args(&["--config", dir.to_str().unwrap()]).unwrap_err().to_string();
    assert!(error.contains("limti") && error.contains("store"), "{error}");
    let error = load_args(&["--store-limit", "many"]).unwrap_err().to_string();
    assert!(error.contains("store.limit"), "{error}");
    assert!(load_args(&["--store-limit", "0"]).unwrap_err().to_string().contains("store.limit"));
    std::fs::remove_file(dir).unwrap();
}

#[test]
fn help_lists_every_key_with_default_and_environment() {
    let help = help_all::<Config>("test", "A test.");
    for part in ["--store-limit", "Maximum number of connections.", "[default: 7]", "PALISADE_STORE__LIMIT", "named.<name>.limit"] {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn help_shows_common_settings_and_help_all_every_setting() {
    let short = command::<Config>("test", "A test.", &["listen"]).render_help().to_string();
    assert!(short.contains("--listen") && !short.contains("--store-limit") && short.contains("--help-all"), "{short}");
    let Invocation::Help(all) = load_args(&["--help-all"]).unwrap() else { panic!("expected the help") };
    assert!(all.contains("--listen") && all.contains("--store-limit") && all.contains("Settings: store"), "{all}");
}

#[test]
fn reference_has_key_type_default_and_variable() {
    let page = reference::<Config>(2);
    assert!(page.contains("## `store`") && page.contains("| `limit` | integer |"), "{page}");
    assert!(page.contains("`PALISADE_STORE__LIMIT`"), "{page}");
}

#[test]
fn numbers_above_their_bound_are_rejected_by_key() {
    for (flag, key, largest) in
        [("--store-limit", "store.limit", 1_000_000_000), ("--store-probe-ms", "store.probe_ms", 315_360_000_000_u64)]
    {
        load_args(&[flag, &largest.to_string()]).unwrap();
        for huge in [(largest + 1).to_string(), "1000000000000000".to_owned(), u64::MAX.to_string(), u128::MAX.to_string()] {
            let error = load_args(&[flag, &huge]).unwrap_err().to_string();
            assert!(error.contains(key), "{flag} {huge}: {error}");
        }
    }
    assert!(load_args(&["--store-share", "1e15"]).unwrap_err().to_string().contains("store.share"));
    let file = tempfile("bounds", "[named.first]\nprobe_ms = 1000000000000000\n");
    let error = load_args(&["--config", file.to_str().unwrap()]).unwrap_err().to_string();
    assert!(error.contains("named.first.probe_ms"), "{error}");
    // A number in a text setting is no numeric setting.
    load_args(&["--store-url", "\"86753091234\""]).unwrap();
    std::fs::remove_file(file).unwrap();
}

fn tempfile(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("palisade-config-{name}-{}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}
