//! The programs accept the settings of their pods: secrets made by the example's script,
//! environment, and probes.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use palisade_tests::{
    Client,
    files::texts,
    process::{Program, command, run, search_path},
    shop::SERVICES,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::manifests::{deploy, kustomization, object};

const SECRETS: &str = "overlays/example/secrets";

/// Secret files of the example, created by its script.
struct Secrets(TempDir);

impl Secrets {
    fn new() -> Self {
        let directory = TempDir::with_prefix("palisade-deploy-").unwrap();
        let script = directory.path().join("make.sh");
        fs::copy(deploy().join(SECRETS).join("make.sh"), &script).unwrap();
        let mut make = Command::new("sh");
        make.arg(&script).env("PATH", search_path());
        make.env("PRODUCTS_STORE_URL", "mongodb://user:password@mongo.example.com:27017/products");
        make.env("ORDERS_STORE_URL", format!("sqlite://{}", directory.path().join("orders.db").display()));
        let output = make.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(directory)
    }

    /// Maps a path in a pod to the created file. `None` if nothing is mounted there.
    fn path(&self, pod: &Value, inside: &str) -> Option<PathBuf> {
        let mounts = pod["containers"][0]["volumeMounts"].as_array()?;
        let mount = mounts.iter().find(|mount| inside.starts_with(&format!("{}/", mount["mountPath"].as_str().unwrap())))?;
        let volume = pod["volumes"].as_array()?.iter().find(|volume| volume["name"] == mount["name"])?;
        let secrets = kustomization(&deploy().join(SECRETS));
        let (source, generators) = match volume.get("secret") {
            Some(secret) => (&secret["secretName"], &secrets.secret_generator),
            None => (&volume["configMap"]["name"], &secrets.config_map_generator),
        };
        let generator = generators.iter().find(|generator| *source == *generator.name)?;
        let (_, key) = inside.rsplit_once('/')?;
        let file = generator.files().get(key).map(|file| self.0.path().join(file));
        let file = file.unwrap_or_else(|| panic!("{} has no {key}", generator.name));
        assert!(file.is_file(), "make.sh does not create {}", file.display());
        Some(file)
    }

    /// Creates a command for a program with the environment of a pod.
    fn configured(&self, program: &str, pod: &Value, environment: BTreeMap<String, String>) -> Command {
        let mut command = command(program);
        for (variable, value) in environment {
            match self.path(pod, &value) {
                Some(path) => command.env(variable, path),
                None => command.env(variable, value),
            };
        }
        command
    }

    fn service(&self, name: &str) -> Command {
        self.configured(name, object("Deployment", name).pod().unwrap(), environment(name))
    }
}

/// Returns the environment of a service in the example: common settings, then its own.
pub(crate) fn environment(service: &str) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    for folder in ["base", "overlays/example"] {
        let settings = kustomization(&deploy().join(folder)).config_map_generator.into_iter().find(|made| made.name == "settings").unwrap();
        assert_eq!(settings.behavior.as_deref(), (folder != "base").then_some("merge"), "{folder}");
        environment.extend(settings.literals.iter().map(|literal| {
            let (name, value) = literal.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        }));
    }
    environment.extend(own_environment(object("Deployment", service).pod().unwrap()));
    environment
}

fn own_environment(pod: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    variables.iter().map(|variable| (text(&variable["name"]), text(&variable["value"]))).collect()
}

fn refusal(mut command: Command) -> Option<String> {
    let output = command.arg("--check-config").output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn programs_accept_pod_settings() {
    let secrets = Secrets::new();
    for name in SERVICES {
        assert_eq!(refusal(secrets.service(name)), None, "{name}");
        let mut wrong = secrets.service(name);
        wrong.env("PALISADE_SERVER__DRAIN", "1");
        assert!(refusal(wrong).is_some(), "{name} ignores unknown settings");
    }
}

#[test]
fn configured_files_are_mounted_and_created() {
    let secrets = Secrets::new();
    let mut files = 0;
    for name in SERVICES {
        for (variable, value) in environment(name).into_iter().filter(|(variable, _)| variable.ends_with("_FILE")) {
            assert!(secrets.path(object("Deployment", name).pod().unwrap(), &value).is_some(), "{name} {variable}: {value}");
            files += 1;
        }
    }
    assert_eq!(files, 8);
}

#[test]
fn migration_job_is_idempotent() {
    let secrets = Secrets::new();
    let job = object("Job", "orders-migrate");
    let pod = job.pod().unwrap();
    let arguments = texts(&pod["containers"][0]["args"]);
    let (program, arguments) = arguments.split_first().unwrap();
    for round in ["first", "second"] {
        let output = secrets.configured(program, pod, own_environment(pod)).args(arguments).output().unwrap();
        assert!(output.status.success(), "{round} migration: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(secrets.0.path().join("orders.db").is_file());
    let without = run(program, &["migrate"]);
    assert!(!without.status.success() && String::from_utf8_lossy(&without.stderr).contains("--store-url-file"), "{without:?}");
}

#[tokio::test]
async fn probes_work_on_the_admin_port() {
    let secrets = Secrets::new();
    let mut gateway = secrets.service("gateway");
    gateway.env("PALISADE_LISTEN", "127.0.0.1:0").env("PALISADE_ADMIN_LISTEN", "127.0.0.1:0");
    gateway.env("PALISADE_UPSTREAMS__PRODUCTS__URL", "http://127.0.0.1:9").env("PALISADE_UPSTREAMS__ORDERS__URL", "http://127.0.0.1:9");
    gateway.env_remove("PALISADE_TELEMETRY__OTLP_ENDPOINT");
    let gateway = Program::start(gateway, secrets.0.path());
    let admin = gateway.url("gateway-admin");
    let ask = async |path: String| Client::new(&admin, None).get(&path).attempt().await.unwrap();
    let deployment = object("Deployment", "gateway");
    let container = &deployment.pod().unwrap()["containers"][0];
    let path = |probe: &str| {
        assert_eq!(container[probe]["httpGet"]["port"], "admin", "{probe}");
        container[probe]["httpGet"]["path"].as_str().unwrap().to_owned()
    };
    assert_eq!(ask(path("startupProbe")).await.status, 200);
    assert_eq!(ask(path("livenessProbe")).await.status, 200);
    // Without upstreams the gateway is alive but not ready.
    assert_eq!(ask(path("readinessProbe")).await.status, 503);
    let monitor = object("ServiceMonitor", "palisade");
    let metrics = ask(monitor.spec()["endpoints"][0]["path"].as_str().unwrap().to_owned()).await.text();
    let workers = environment("gateway")["TOKIO_WORKER_THREADS"].clone();
    assert!(metrics.contains(&format!("\ntokio_workers {workers}\n")), "{metrics}");
}
