//! The programs accept the settings of their containers: keys made by `keys.sh`, environment, and
//! the token printed by `make up`.

use std::{fs, path::Path, process::Command};

use palisade_tests::{
    Client,
    files::{read, repository},
    process::{Program, command, search_path},
};
use tempfile::TempDir;

use crate::stack::{Service, service, services};

/// Directory with the containers' `/keys`, created by the script of the keys container.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        let directory = TempDir::with_prefix("palisade-compose-").unwrap();
        // One directory per volume of the keys container.
        for mount in keys_container().mounts() {
            fs::create_dir_all(directory.path().join(mount.target.trim_start_matches('/'))).unwrap();
        }
        let keys = Self(directory);
        keys.run(&read(&repository().join("compose/keys.sh")));
        keys
    }

    /// Runs a script with `/keys` redirected to this directory and returns its output.
    fn run(&self, script: &str) -> String {
        let script = script.replace("/keys/", &format!("{}/keys/", self.0.path().display()));
        let output = Command::new("sh").args(["-euc", &script]).env("PATH", search_path()).output().unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Maps a path in a service's container to this directory. The keys container mounts the same
    /// volume elsewhere.
    fn path(&self, service: &Service, inside: &str) -> String {
        let (makes, has) = (keys_container().mounts(), service.mounts());
        let mount = has.iter().find(|mount| inside.starts_with(&mount.target)).unwrap_or_else(|| panic!("{}: {inside}", service.name));
        assert!(mount.read_only, "{}: {inside}", service.name);
        let made = &makes.iter().find(|made| made.source == mount.source).unwrap().target;
        self.0.path().join(made.trim_start_matches('/')).join(&inside[mount.target.len() + 1..]).display().to_string()
    }
}

fn keys_container() -> Service {
    service("keys")
}

/// Creates a command for the built program with the environment of its container.
fn configured(name: &str, keys: &Keys) -> Command {
    let service = service(name);
    let mut command = command(name);
    for (variable, value) in service.environment() {
        let value = if value.starts_with("/keys/") { keys.path(&service, &value) } else { value };
        command.env(variable, value);
    }
    command
}

fn refusal(mut command: Command) -> Option<String> {
    let output = command.arg("--check-config").output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn programs_accept_container_settings() {
    let keys = Keys::new();
    for name in ["gateway", "products", "orders"] {
        assert_eq!(refusal(configured(name, &keys)), None, "{name}");
        let mut wrong = configured(name, &keys);
        wrong.env("PALISADE_TELEMETRY__SAMPLE_RATE", "1");
        assert!(refusal(wrong).is_some(), "{name} ignores unknown settings");
    }
}

#[test]
fn configured_key_files_are_created() {
    let keys = Keys::new();
    let mut files = 0;
    for service in ["gateway", "products", "orders"].map(service) {
        for (variable, inside) in service.environment().into_iter().filter(|(_, value)| value.starts_with("/keys/")) {
            let path = keys.path(&service, &inside);
            assert!(Path::new(&path).is_file(), "{} {variable}: {path}", service.name);
            files += 1;
        }
    }
    assert_eq!(files, 6);
}

#[test]
fn services_mount_only_their_own_private_key() {
    for service in services().into_iter().filter(|service| service.name != "keys") {
        let keys: Vec<_> = service.mounts().into_iter().map(|mount| mount.source).filter(|volume| volume.ends_with("-key")).collect();
        assert!(keys.is_empty() || keys == [format!("{}-key", service.name)], "{}: {keys:?}", service.name);
    }
}

#[tokio::test]
async fn printed_token_is_accepted_by_gateway() {
    let keys = Keys::new();
    let mut gateway = configured("gateway", &keys);
    gateway.env("PALISADE_LISTEN", "127.0.0.1:0").env("PALISADE_ADMIN_LISTEN", "127.0.0.1:0");
    gateway.env_remove("PALISADE_TELEMETRY__OTLP_ENDPOINT");
    let gateway = Program::start(gateway, keys.0.path());
    let words = read(&repository().join("compose/up.txt"));
    let (_, mint) = words.split_once("run --rm -T keys \\\n").unwrap();
    let token = keys.run(mint.split_once(")\n").unwrap().0.trim());
    // The gateway has no upstreams, so an authenticated request gets 503.
    let answer = |token: String| Client::new(gateway.url("gateway"), Some(token)).get("/products");
    answer(format!("{token}x")).await.any_problem(401);
    answer(token).await.any_problem(503);
}
