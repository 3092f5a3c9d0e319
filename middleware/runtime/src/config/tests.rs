use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::*;

/// Test configuration.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// Listen address.
    listen: SocketAddr,
    store: Store,
    /// Stores by name.
    named: BTreeMap<String, Store>,
    /// Mode.
    mode: Option<Mode>,
    /// Ratio.
    ratio: f64,
    /// Switch.
    on: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Fast,
    Slow,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Store {
    /// Maximum number of connections.
    limit: u32,
    /// Store URL.
    url: Option<SecretUrl>,
    /// File with the store URL.
    url_file: Option<PathBuf>,
    /// Key.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    secret: Option<SecretString>,
    /// Directory.
    directory: String,
    /// Interval of probes, milliseconds.
    probe_ms: u64,
    /// Share of probes.
    share: f64,
}

impl Default for Config {
    fn default() -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        Self { listen, store: Store::default(), named: BTreeMap::new(), mode: None, ratio: 0.5, on: false }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { limit: 7, url: None, url_file: None, secret: None, directory: "data".to_owned(), probe_ms: 1_000, share: 0.5 }
    }
}

impl Validate for Config {
    const INEFFECTIVE: &'static [(&'static str, &'static str)] = &[("named.old", "it was renamed")];

    fn validate(&self) -> Vec<Invalid> {
        not_zero([("store.limit", self.store.limit.into())]).collect()
    }

    fn check(&self) -> Vec<Invalid> {
        let invalid = self.store.url.as_ref().filter(|url| url.scheme() != "sqlite");
        invalid.map(|_| Invalid::new("store.url", "must be sqlite://path")).into_iter().collect()
    }
}

/// Loads the configuration of this file, environment and arguments.
fn load_all(file: Option<&str>, environment: &[(&str, &str)], args: &[&str]) -> Result<Loaded<Config>, Error> {
    let path = std::env::temp_dir().join(format!("palisade-config-{}.toml", uuid::Uuid::new_v4()));
    let mut all = vec![OsString::from("test")];
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        all.extend(["--config".into(), path.clone().into()]);
    }
    all.extend(args.iter().map(OsString::from));
    let matches = command::<Config>("test", "A test.", &["listen"]).try_get_matches_from(all)?;
    let loaded = load_from(&matches, environment.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))));
    let _ = std::fs::remove_file(path);
    loaded
}

#[track_caller]
fn run(file: Option<&str>, environment: &[(&str, &str)], args: &[&str]) -> Config {
    match load_all(file, environment, args).unwrap() {
        Loaded { invocation: Invocation::Run(config), warnings } => {
            assert_eq!(warnings, Vec::<String>::new());
            config
        }
        loaded => panic!("{loaded:?}"),
    }
}

fn error(file: Option<&str>, environment: &[(&str, &str)], args: &[&str]) -> String {
    load_all(file, environment, args).unwrap_err().to_string()
}

#[test]
fn flags_take_precedence_over_environment_and_file() {
    let file = Some("mode = \"slow\"\n[store]\nlimit = 1\ndirectory = \"file\"\n");
    let environment = [("PALISADE_STORE__LIMIT", "2"), ("PALISADE_NAMED__OTHER__LIMIT", "5"), ("PALISADE_RATIO", "1")];
    let config = run(file, &environment, &["--store-limit", "3", "--listen", "127.0.0.1:9"]);
    assert_eq!((config.store.limit, config.store.directory.as_str(), config.listen.port()), (3, "file", 9));
    assert_eq!((config.named["other"].limit, config.mode, config.ratio.to_string().as_str()), (5, Some(Mode::Slow), "1"));
}

#[test]
fn text_is_taken_to_the_letter() {
    for text in ["2026", "12345", "true", "1.5", "", " a ", "\"quoted\"", "'a'", "[1]", "{a=1}", "http://a:1,http://b:2", "-x", "#"] {
        assert_eq!(run(None, &[("PALISADE_STORE__DIRECTORY", text)], &[]).store.directory, text);
        assert_eq!(run(None, &[], &["--store-directory", text]).store.directory, text);
        let secret = run(None, &[("PALISADE_NAMED__A__SECRET", text)], &[]).named.remove("a").unwrap().secret;
        assert_eq!(secret.unwrap().expose_secret(), text);
    }
}

#[test]
fn each_layer_replaces_the_twin_of_a_secret() {
    let file = "[store]\nurl = \"sqlite://a\"\n[named.x]\nurl = \"sqlite://a\"";
    let environment = [("PALISADE_STORE__URL_FILE", "/run/url"), ("PALISADE_NAMED__X__URL_FILE", "/run/url")];
    let config = run(Some(file), &environment, &[]);
    for store in [&config.store, &config.named["x"]] {
        assert_eq!((store.url.as_ref(), store.url_file.as_deref()), (None, Some(std::path::Path::new("/run/url"))));
    }
    let config = run(Some(file), &environment, &["--store-url", "sqlite://b"]);
    assert_eq!((config.store.url.map(|url| url.expose().to_owned()), config.store.url_file), (Some("sqlite://b".to_owned()), None));
}

#[test]
fn errors_name_key_and_source() {
    for (file, environment, args, key, part) in [
        (Some("limti = 3"), &[][..], &[][..], "limti: unknown setting", ".toml"),
        (Some("[store]\nlimti = 3"), &[], &[], "store.limti: unknown setting", ".toml"),
        (Some("store = 3"), &[], &[], "store: is a section", ".toml"),
        (Some("[store]\ndirectory = 2026"), &[], &[], "store.directory: must be text", ".toml"),
        (Some("[store]\nlimit = \"3\""), &[], &[], "store.limit: must be an integer", ".toml"),
        (Some("[store]\nlimit = -3"), &[], &[], "store.limit: ", ".toml"),
        (Some("[store]\nlimit = 2026-01-01"), &[], &[], "store.limit: must be an integer", ".toml"),
        (Some("mode = \"quick\""), &[], &[], "mode: must be one of fast, slow", ".toml"),
        (Some("[named.old]\nlimit = 7"), &[], &[], "named.old.limit: has no effect here: it was renamed", ".toml"),
        (None, &[("PALISADE_NONSENSE", "1")], &[], "nonsense: unknown setting", "PALISADE_NONSENSE"),
        (None, &[("PALISADE_NAMED__LIMIT", "1")], &[], "named.limit: unknown setting", "PALISADE_NAMED__LIMIT"),
        (None, &[("PALISADE_STORE__LIMIT", "many")], &[], "store.limit: must be an integer, not \"many\"", "PALISADE_STORE__LIMIT"),
        (None, &[("PALISADE_STORE__LIMIT", "")], &[], "store.limit: must be an integer", "PALISADE_STORE__LIMIT"),
        (None, &[("PALISADE_STORE__LIMIT", "5000000000")], &[], "store.limit: ", "PALISADE_STORE__LIMIT"),
        (None, &[("PALISADE_RATIO", "NaN")], &[], "ratio: must be a number", "PALISADE_RATIO"),
        (None, &[("PALISADE_ON", "yes")], &[], "on: must be true or false", "PALISADE_ON"),
        (None, &[("PALISADE_MODE", "Fast")], &[], "mode: must be one of fast, slow", "PALISADE_MODE"),
        (None, &[("PALISADE_LISTEN", "banana")], &[], "listen: invalid socket address syntax", "PALISADE_LISTEN"),
        (None, &[], &["--store-limit", "0"], "store.limit: must be greater than 0", "--store-limit"),
        (None, &[], &["--listen", "7"], "listen: ", "--listen"),
    ] {
        let text = error(file, environment, args);
        assert!(text.starts_with(key) && text.contains(part), "{key}: {text}");
    }
    assert!(error(None, &[], &["--config", "/no/such/file"]).starts_with("config: cannot read /no/such/file"));
}

#[test]
fn all_errors_are_reported_at_once() {
    let file = "nonsense = 1\n[store]\nlimit = 0\n";
    let environment = [("PALISADE_LISTEN", "banana"), ("PALISADE_STORE__URL", "mysql://app:hunter2@db"), ("PALISADE_MODE", "7")];
    let text = error(Some(file), &environment, &["--ratio", "x"]);
    for key in ["nonsense", "store.limit", "listen", "store.url", "mode", "ratio"] {
        assert_eq!(text.matches(&format!("\n  {key}: ")).count(), 1, "{key}: {text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn errors_never_show_a_secret() {
    const SECRET: &str = "86753091234";
    for (file, environment, key) in [
        (Some(format!("[named.idp]\nsecret = {SECRET}")), vec![], "named.idp.secret: must be text"),
        (Some(format!("[named.idp]\nsecret = [{SECRET}]")), vec![], "named.idp.secret: must be text"),
        (Some(format!("[named.idp]\nsecret = x{SECRET}")), vec![], "named.idp.secret: invalid TOML in"),
        (Some(format!("[named.idp]\nsecret = \"x{SECRET}\nlimit = 1")), vec![], "named.idp.secret: invalid TOML in"),
        (Some(format!("[store]\nurl = nats://u:{SECRET}@host")), vec![], "store.url: invalid TOML in"),
        (Some(format!("x{SECRET}")), vec![], "config: invalid TOML in"),
        (Some(format!("[store]\nurl = \"nats://u:{SECRET}@host\"")), vec![], "store.url: must be sqlite"),
        (None, vec![("PALISADE_STORE__URL", format!("nats://u:{SECRET}@host"))], "store.url: must be sqlite"),
        (None, vec![("PALISADE_STORE__URL", SECRET.to_owned())], "store.url: must be sqlite"),
    ] {
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let result = load_all(file.as_deref(), &environment, &[]);
        let error = result.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
        assert!(error.to_string().starts_with(key), "{key}: {error}");
    }
    let config = run(None, &[("PALISADE_NAMED__IDP__SECRET", SECRET)], &[]);
    assert!(!format!("{config:?}").contains(SECRET), "{config:?}");
}

#[test]
fn variables_of_kubernetes_services_are_ignored_with_a_warning() {
    let service = [
        ("PALISADE_PORT", "tcp://10.0.0.1:3000"),
        ("PALISADE_SERVICE_HOST", "10.0.0.1"),
        ("PALISADE_SERVICE_PORT", "3000"),
        ("PALISADE_SERVICE_PORT_HTTP", "3000"),
        ("PALISADE_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
        ("PALISADE_PORT_3000_TCP_PROTO", "tcp"),
        ("PALISADE_PORT_3000_TCP_PORT", "3000"),
        ("PALISADE_PORT_3000_TCP_ADDR", "10.0.0.1"),
        ("PALISADE_GATEWAY_SERVICE_HOST", "fd00::1"),
        ("PALISADE_GATEWAY_PORT", "tcp://[fd00::1]:3000"),
        ("PALISADE_GATEWAY_PORT_9464_UDP", "udp://10.0.0.1:9464"),
    ];
    let Loaded { warnings, .. } = load_all(None, &service, &[]).unwrap();
    let [warning] = warnings.try_into().unwrap();
    assert!(service.iter().all(|(name, _)| warning.contains(name)) && warning.contains("Kubernetes"), "{warning}");
    for variable in
        [("PALISADE_PORT", "3000"), ("PALISADE_SERVICE_HOST", "db"), ("PALISADE_SERVICE_PORTS", "1"), ("PALISADE_HOST", "10.0.0.1")]
    {
        assert!(error(None, &[variable], &[]).contains(variable.0), "{variable:?}");
    }
}

#[test]
fn health_check_loads_no_files() {
    let args = ["--health-check", "--store-url", "mysql://db"];
    assert!(matches!(load_all(None, &[], &args).unwrap().invocation, Invocation::HealthCheck(_)));
    assert!(error(None, &[], &["--check-config", "--store-url", "mysql://db"]).starts_with("store.url: "));
    assert!(matches!(load_all(None, &[], &["--check-config"]).unwrap().invocation, Invocation::Check(_)));
}

#[test]
fn listeners_with_one_address_are_found() {
    let found = |listeners: &[(&'static str, &str)]| {
        let listeners: Vec<_> = listeners.iter().map(|(key, address)| (*key, address.parse().unwrap())).collect();
        distinct_listeners(&listeners).into_iter().map(|invalid| invalid.to_string()).collect::<Vec<_>>()
    };
    assert!(found(&[("a", "127.0.0.1:0"), ("b", "127.0.0.1:0"), ("c", "127.0.0.1:1"), ("d", "127.0.0.2:1")]).is_empty());
    assert_eq!(found(&[("a", "127.0.0.1:1"), ("b", "0.0.0.0:1")]), ["b: 0.0.0.0:1 is also the address of a"]);
}

#[test]
fn help_lists_every_key_with_default_and_environment() {
    let help = help_all::<Config>("test", "A test.");
    for part in
        ["--store-limit", "Maximum number of connections.", "[default: 7]", "PALISADE_STORE__LIMIT", "named.<name>.limit", "fast|slow"]
    {
        assert!(help.contains(part), "{part} in {help}");
    }
}

#[test]
fn help_shows_common_settings_and_help_all_every_setting() {
    let short = command::<Config>("test", "A test.", &["listen"]).render_help().to_string();
    assert!(short.contains("--listen") && !short.contains("--store-limit") && short.contains("--help-all"), "{short}");
    let args = ["test", "--help-all"].map(OsString::from);
    let Invocation::Help(all) = from_args::<Config>(("test", "A test.", &["listen"]), args).unwrap().invocation else {
        panic!("expected the help")
    };
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
        run(None, &[], &[flag, &largest.to_string()]);
        for huge in [(largest + 1).to_string(), "1000000000000000".to_owned(), u64::MAX.to_string(), u128::MAX.to_string()] {
            assert!(error(None, &[], &[flag, &huge]).starts_with(key), "{flag} {huge}");
        }
    }
    assert!(error(None, &[], &["--store-share", "1e15"]).starts_with("store.share: must be at most"));
    let file = Some("[named.first]\nprobe_ms = 1000000000000000\n");
    assert!(error(file, &[], &[]).starts_with("named.first.probe_ms: must be at most"));
}
