//! Bad values for all settings of all programs.

use std::{collections::BTreeMap, ffi::OsString};

use palisade_middleware::config::{Error, Loaded, command, load_from, settings};
use serde::de::DeserializeOwned;

use super::*;

/// Name that stands for `<name>` in keys.
const NAME: &str = "some";

/// Loads the configuration of `T` with these values in the environment. Returns the rule that each
/// key breaks.
fn broken<T: DeserializeOwned + JsonSchema + Validate>(values: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let matches = command::<T>("test", "", &[]).try_get_matches_from(["test"]).unwrap();
    let variable = |key: &str| format!("PALISADE_{}", key.replace('.', "__").to_uppercase());
    let environment = values.iter().map(|(key, value)| (variable(key), OsString::from(value)));
    match load_from::<T>(&matches, environment) {
        Ok(Loaded { .. }) => BTreeMap::new(),
        Err(Error::Invalid(invalid)) => invalid.into_iter().map(|invalid| (invalid.key.into_owned(), invalid.rule)).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// Keys of this kind, with user-defined names filled in.
fn keys<T: JsonSchema>(kind: impl Fn(&str) -> bool) -> Vec<String> {
    let settings = settings::<T>().into_iter().filter(|(_, found)| kind(found));
    settings.map(|(path, _)| path.replace("<name>", NAME)).collect()
}

fn all_with(keys: &[String], value: &str) -> BTreeMap<String, String> {
    keys.iter().map(|key| (key.clone(), value.to_owned())).collect()
}

fn check_all<T: DeserializeOwned + JsonSchema + Validate>() {
    let every = keys::<T>(|_| true);
    let is_words = |kind: &str| kind.contains('|');
    let cases: [(Vec<String>, &[&str]); 4] = [
        (keys::<T>(|kind| kind == "INTEGER"), &["x", "", "1.5", "-1", " 1", "99999999999999999999"]),
        (keys::<T>(|kind| kind == "NUMBER"), &["x", "", "NaN", "inf"]),
        (keys::<T>(|kind| kind == "BOOL"), &["x", "", "1", "True"]),
        (keys::<T>(is_words), &["x", "", "hunter2"]),
    ];
    for (keys, values) in cases {
        for value in values {
            let broken = broken::<T>(&all_with(&keys, value));
            for key in &keys {
                assert!(broken.contains_key(key), "{key} accepts {value:?}: {broken:#?}");
            }
        }
    }
    // Values out of range: whatever is refused has the name of its key.
    for value in ["0", "1", "4294967296", "1000000000000000", "18446744073709551615"] {
        for key in broken::<T>(&all_with(&keys::<T>(|kind| kind == "INTEGER"), value)).keys() {
            let is_known =
                every.iter().any(|known| known == key || known.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.')));
            assert!(is_known, "{key} is no setting");
        }
    }
    // Text: addresses, URLs and files are checked, and no secret is shown.
    let text = keys::<T>(|kind| kind == "TEXT");
    let refused = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or_default();
        ["listen", "admin_listen", "admin_hosts", "url", "otlp_endpoint", "log_filter", "trusted_proxies"].contains(&name)
    };
    let broken = broken::<T>(&all_with(&text, "nonsense: hunter2=hunter2"));
    for key in text.iter().filter(|key| refused(key)) {
        assert!(broken.contains_key(key), "{key} accepts nonsense: {broken:#?}");
    }
    for (key, rule) in &broken {
        // The addresses of services have no credentials.
        let is_address = key.contains("upstreams.") || key.contains("registration.");
        let is_secret = !is_address && ["url", "secret", "endpoint"].iter().any(|end| key.ends_with(end));
        assert!(!is_secret || !rule.contains("hunter2"), "{key} shows its value: {rule}");
    }
}

#[test]
fn bad_value_of_any_setting_is_reported_with_its_key() {
    check_all::<Config>();
    check_all::<palisade_gateway::Config>();
    check_all::<palisade_products::Config>();
    check_all::<palisade_orders::Config>();
}

#[test]
fn default_settings_are_valid() {
    assert_eq!(broken::<Config>(&BTreeMap::new()), BTreeMap::new());
    let required = |broken: BTreeMap<String, String>| broken.into_keys().collect::<Vec<_>>();
    assert_eq!(required(broken::<palisade_gateway::Config>(&BTreeMap::new())), ["auth.issuers", "identity.signing_key_file"]);
    assert_eq!(required(broken::<palisade_products::Config>(&BTreeMap::new())), ["auth.issuers", "store.url"]);
    assert_eq!(required(broken::<palisade_orders::Config>(&BTreeMap::new())), ["auth.issuers", "identity.signing_key_file", "store.url"]);
}

#[test]
fn ineffective_settings_are_errors() {
    let ineffective = [
        ("gateway.upstreams.orders.url", "http://127.0.0.1:5001"),
        ("orders.upstreams.products.tls.reload_ms", "1000"),
        ("products.telemetry.log_filter", "info"),
        ("orders.identity.signing_key_file", "/keys/orders.pem"),
        ("orders.server.lame_duck_ms", "1"),
    ];
    let values = ineffective.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let broken = broken::<Config>(&values);
    assert_eq!(broken.keys().collect::<Vec<_>>(), values.keys().collect::<Vec<_>>());
    assert!(broken.values().all(|rule| rule.contains("has no effect")), "{broken:?}");
}

#[test]
fn listeners_of_all_services_are_distinct() {
    let values = [("gateway.listen", "127.0.0.1:4000"), ("orders.admin_listen", "127.0.0.1:4000")];
    let broken = broken::<Config>(&values.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert!(broken["orders.admin_listen"].contains("gateway.listen"), "{broken:?}");
}

#[test]
fn services_agree_about_the_prefix_of_an_issuer() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let broken = |issuers: &[(&str, &str, &str)]| {
        let values = issuers.iter().flat_map(|(section, iss, prefix)| {
            [("issuer", *iss), ("secret", SECRET), ("subject_prefix", *prefix)]
                .map(|(setting, value)| (format!("{section}.auth.issuers.some.{setting}"), value.to_owned()))
        });
        broken::<Config>(&values.collect()).into_keys().collect::<Vec<_>>()
    };
    assert!(broken(&[("gateway", "https://a", ""), ("orders", "https://a", "")]).is_empty());
    assert!(broken(&[("gateway", "https://a", ""), ("orders", "https://b", "b:")]).is_empty());
    let key = "orders.auth.issuers.some.subject_prefix";
    assert_eq!(broken(&[("gateway", "https://a", ""), ("orders", "https://b", "")]), [key]);
    assert_eq!(broken(&[("gateway", "https://a", ""), ("orders", "https://a", "a:")]), [key]);
    // The development key signs for users without a prefix.
    assert_eq!(broken(&[("orders", "https://b", "")]), [key]);
}

#[test]
fn data_directory_must_be_usable() {
    let directory = std::env::temp_dir().join(format!("palisade-data-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let broken = |path: &std::path::Path| {
        broken::<Config>(&[("data_dir".to_owned(), path.display().to_string())].into()).into_keys().collect::<Vec<_>>()
    };
    assert!(broken(&directory).is_empty() && broken(&directory.join("new")).is_empty());
    let key = directory.join("dev-signing-key.pem");
    std::fs::write(&key, "no key").unwrap();
    assert_eq!((broken(&directory), broken(&key)), (vec!["data_dir".to_owned()], vec!["data_dir".to_owned()]));
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn console_injects_faults_with_the_development_key() {
    let enabled = |mut config: Config| {
        config.set_fault_injection();
        [&config.gateway.server, &config.products.server, &config.orders.server].map(|server| server.fault_injection.enabled)
    };
    assert_eq!(enabled(Config::default()), [true; 3]);
    assert_eq!(enabled(Config { console: false, ..Config::default() }), [false; 3]);
    let mut with_issuer = Config::default();
    with_issuer.gateway.auth = serde_json::from_value(serde_json::json!({ "issuers": { "some": {} } })).unwrap();
    assert_eq!(enabled(with_issuer), [false; 3], "its tokens are accepted on any address");
    let mut scraped = Config::default();
    scraped.gateway.admin_listen.set_ip([0, 0, 0, 0].into());
    assert_eq!(enabled(scraped), [false; 3], "its admin port needs no token");
}
