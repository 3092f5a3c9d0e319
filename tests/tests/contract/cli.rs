//! Command lines: configuration, keys, tokens.

use std::{fs, os::unix::fs::PermissionsExt};

use palisade_tests::{
    Client, Shop,
    child::{Child, Signal},
    jwt::{claims_of, now},
    process::{command, output_of, run},
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
    for url in ["postgres://app:hunter2@", "hunter2"] {
        assert!(!startup_failure("orders", &["--check-config"], &[("PALISADE_STORE__URL", url)]).contains("hunter2"));
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
