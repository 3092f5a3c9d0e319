//! Command lines: configuration, keys, tokens.

use std::{fs, os::unix::fs::PermissionsExt};

use palisade_tests::{
    Client, Shop,
    child::{Child, Signal},
    jwt::{claims_of, now},
    process::{command, output_of, run},
    shop::ALL_SCOPES,
    shop_helpers::create_product,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAMS: [&str; 4] = ["gateway", "products", "orders", "palisade"];

/// Runs a program that must fail to start and returns its output.
fn startup_failure(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = command(name);
    command.args(arguments).envs(environment.iter().copied());
    let mut child = Child::spawn(&command, None, Signal::KILL).unwrap();
    let status = child.wait().unwrap();
    let text = child.log();
    assert!(!status.success(), "{name} accepted {arguments:?} {environment:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

#[test]
fn help_lists_options_and_settings() {
    for name in PROGRAMS {
        let help = output_of(name, &["--help"]);
        for word in ["--config", "--check-config", "PALISADE_"] {
            assert!(help.contains(word), "{name} --help does not mention {word}:\n{help}");
        }
    }
}

#[test]
fn invalid_settings_are_rejected_by_name() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("palisade.toml");
    let path = file.to_str().unwrap();
    for name in ["gateway", "products", "orders"] {
        assert!(startup_failure(name, &["--check-config"], &[("PALISADE_NONSENSE", "1")]).to_lowercase().contains("nonsense"), "{name}");
        assert!(startup_failure(name, &["--check-config"], &[("PALISADE_LISTEN", "banana")]).to_lowercase().contains("listen"), "{name}");
        fs::write(&file, "nonsense = 1\n").unwrap();
        assert!(startup_failure(name, &["--check-config", "--config", path], &[]).contains("nonsense"), "{name}");
        fs::write(&file, "listen = [\n").unwrap();
        assert!(startup_failure(name, &["--check-config", "--config", path], &[]).contains("palisade.toml"), "{name}");
        startup_failure(name, &["--check-config", "--config", "/no/such/file.toml"], &[]);
        startup_failure(name, &["--no-such-flag"], &[]);
    }
}

#[test]
fn all_in_one_rejects_ineffective_settings() {
    for (key, variable, value) in [
        ("orders.telemetry", "PALISADE_ORDERS__TELEMETRY__LOG_FILTER", "debug"),
        ("gateway.identity.signing_key_file", "PALISADE_GATEWAY__IDENTITY__SIGNING_KEY_FILE", "/keys/gateway.pem"),
    ] {
        assert!(startup_failure("palisade", &["--check-config"], &[(variable, value)]).contains(key), "{key}");
    }
}

#[test]
fn invalid_secrets_are_not_printed() {
    for (name, variable, value) in [
        ("orders", "PALISADE_STORE__URL", "postgres://app:86753091234@"),
        ("orders", "PALISADE_STORE__URL", "86753091234"),
        ("orders", "PALISADE_EVENTS__NATS_URL", "nat://u:86753091234@host"),
        ("gateway", "PALISADE_AUTH__ISSUERS__IDP__SECRET", "86753091234"),
        ("gateway", "PALISADE_CACHE__REDIS_URL", "86753091234"),
        ("gateway", "PALISADE_UPSTREAMS__ORDERS__URL", "http://u:86753091234@orders:5001"),
        ("products", "PALISADE_TELEMETRY__OTLP_ENDPOINT", "ftp://u:86753091234@collector"),
    ] {
        let output = startup_failure(name, &["--check-config"], &[(variable, value)]);
        let key = variable["PALISADE_".len()..].to_lowercase().replace("__", ".");
        assert!(output.contains(&key) && !output.contains("86753091234"), "{output}");
    }
}

#[test]
fn all_invalid_settings_are_reported_at_once() {
    let environment = [
        ("PALISADE_LISTEN", "banana"),
        ("PALISADE_STORE__URL", "mysql://db"),
        ("PALISADE_SAGA__BATCH", "0"),
        ("PALISADE_TELEMETRY__LOG_FILTER", "a=b=c"),
        ("PALISADE_SERVER__MAX_IN_FLIGHT", "0"),
        ("PALISADE_NONSENSE", "1"),
    ];
    // The check and the start give the same answer.
    for arguments in [&["--check-config"][..], &[]] {
        let output = startup_failure("orders", arguments, &environment);
        for key in
            ["listen", "store.url", "saga.batch", "telemetry.log_filter", "server.max_in_flight", "nonsense", "identity.signing_key_file"]
        {
            assert!(output.contains(&format!("  {key}: ")), "{key}: {output}");
        }
    }
}

#[test]
fn address_in_use_is_reported_with_its_key() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = TempDir::new().unwrap();
    let data = directory.path().to_str().unwrap();
    for key in ["gateway.listen", "gateway.admin_listen", "orders.listen", "products.admin_listen"] {
        let flag = |name: &str| format!("--{}", name.replace(['.', '_'], "-"));
        let listeners = ["gateway", "products", "orders"].map(|service| [format!("{service}.listen"), format!("{service}.admin_listen")]);
        let arguments = listeners
            .as_flattened()
            .iter()
            .flat_map(|name| [flag(name), if name == key { address.clone() } else { "127.0.0.1:0".to_owned() }]);
        let arguments: Vec<_> = ["--data-dir".to_owned(), data.to_owned()].into_iter().chain(arguments).collect();
        let output = startup_failure("palisade", &arguments.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert!(output.contains(&format!("{key}: ")) && output.contains(&address), "{output}");
    }
}

#[test]
fn options_without_effect_are_errors() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().to_str().unwrap();
    let token = ["token", "--sub", "a"];
    for before in [&["--gateway-listen", "127.0.0.1:1"][..], &["--config", "/no/such/file"], &["--check-config"]] {
        let output = run("palisade", &[before, &["--data-dir", data], &token].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(before[0]), "{before:?}: {text}");
    }
    let made = directory.path().join("key.pem");
    let output = run("palisade", &["--data-dir", data, "keygen", "--out", made.to_str().unwrap()]);
    assert!(!output.status.success() && !made.exists());
    output_of("palisade", &[&["--data-dir", data], &token[..]].concat());
    assert!(directory.path().join("dev-signing-key.pem").exists());
}

#[test]
fn variables_of_kubernetes_services_do_not_stop_the_start() {
    let directory = TempDir::new().unwrap();
    let mut command = command("palisade");
    command.arg("--check-config").env("PALISADE_PORT", "tcp://10.0.0.1:3000").env("PALISADE_SERVICE_HOST", "10.0.0.1");
    // A text of digits only.
    command.env("PALISADE_DATA_DIR", "2026").current_dir(directory.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.lines().count() == 1 && text.contains("PALISADE_PORT"), "{text}");
}

#[tokio::test]
async fn data_directory_is_private() {
    let shop = Shop::all_in_one();
    create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(shop.directory()), 0o700);
    let files: Vec<_> = fs::read_dir(shop.directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["orders.db", "orders.db-wal", "orders.db-shm", "products.db", "products.db-wal"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for path in &files {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
}

#[test]
fn environment_overrides_file_and_secret_files_work() {
    let directory = TempDir::new().unwrap();
    let (config, secret) = (directory.path().join("products.toml"), directory.path().join("url"));
    let store = directory.path().join("products.db");
    fs::write(&config, "listen = \"127.0.0.1:1\"\n[store]\nurl = \"nonsense\"\n").unwrap();
    fs::write(&secret, format!("sqlite://{}\n", store.display())).unwrap();
    let check = |environment: &[(&str, &str)]| {
        let mut command = command("products");
        command.args(["--check-config", "--config", config.to_str().unwrap()]).envs(environment.iter().copied());
        // At least one trusted issuer is required.
        command.env("PALISADE_AUTH__ISSUERS__IDP__SECRET", "0123456789abcdef0123456789abcdef");
        command.output().unwrap()
    };
    assert!(!check(&[]).status.success());
    let output = check(&[("PALISADE_STORE__URL_FILE", secret.to_str().unwrap()), ("PALISADE_LISTEN", "127.0.0.1:0")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!store.exists(), "--check-config must not create the store");
}

#[test]
fn development_key_requires_loopback() {
    let directory = TempDir::new().unwrap();
    let data = directory.path().to_str().unwrap();
    let output = startup_failure("palisade", &["--data-dir", data, "--gateway-listen", "0.0.0.0:0"], &[]);
    assert!(output.contains("key") && output.contains("loopback"), "{output}");
}

#[tokio::test]
async fn printed_token_is_valid() {
    let shop = Shop::shared();
    let token = shop.program("gateway").wait_for_line(|line| Some(line.split_once("export TOKEN=")?.1.trim().to_owned())).unwrap();
    let claims = claims_of(&token);
    assert_eq!(claims["sub"], "demo");
    assert_eq!(claims["scope"].as_str().map(|scope| scope.split(' ').count()), Some(5), "{claims}");
    Client::new(shop.url(), Some(token)).get("/orders").await.ok(200);
    assert!(shop.program("gateway").log().contains("curl "));
}

#[tokio::test]
async fn minted_token_has_requested_claims() {
    let shop = Shop::shared();
    let data = shop.directory().to_str().unwrap();
    let token = output_of("palisade", &["token", "--data-dir", data, "--sub", "alice", "--scope", "products:read", "--expires-in", "60"]);
    let claims = claims_of(&token);
    assert_eq!((&claims["sub"], &claims["scope"]), (&json!("alice"), &json!("products:read")));
    assert!((now() + 50..=now() + 60).contains(&claims["exp"].as_i64().unwrap()), "{claims}");
    assert_eq!(token.split('.').count(), 3);
    Client::new(shop.url(), Some(token)).get("/products").await.ok(200);
}

#[test]
fn keys_are_readable_by_owner_only() {
    let shop = Shop::shared();
    shop.url();
    let keys: Vec<_> =
        fs::read_dir(shop.directory()).unwrap().flatten().filter(|entry| entry.path().extension().is_some_and(|e| e == "pem")).collect();
    assert!(!keys.is_empty());
    let directory = TempDir::new().unwrap();
    let made = directory.path().join("made.pem");
    output_of("palisade", &["keygen", "--out", made.to_str().unwrap()]);
    for key in keys.iter().map(fs::DirEntry::path).chain([made.clone()]) {
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600, "{}", key.display());
        assert!(fs::read_to_string(&key).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
    }
    let public: Value = serde_json::from_str(&output_of("palisade", &["jwks", made.to_str().unwrap()])).unwrap();
    let key = &public["keys"][0];
    assert_eq!((&key["kty"], &key["crv"]), (&json!("OKP"), &json!("Ed25519")));
    assert!(key["kid"].is_string() && key["x"].is_string() && key["d"].is_null(), "{key}");
    assert!(!run("palisade", &["keygen", "--out", made.to_str().unwrap()]).status.success(), "keygen must not overwrite a key");
}
