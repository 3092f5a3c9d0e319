//! Hop of the middleware benchmark as separate processes: an axum handler that makes one tonic
//! call, bare, bare with a read from MongoDB, and with all layers.

use std::{env, path::Path, process::Command, time::Duration};

use palisade_middleware::{
    auth::{UserToken, keys::SigningKey, mint_user_token},
    clock::{Clock, SystemClock},
};
use palisade_tests::{
    child::{Child, Signal},
    servers::Mongo,
};
use secrecy::ExposeSecret;

use super::{BARE, HOP, MONGO, Processes, READS, Request, SystemUnderTest, TELEMETRY};
use crate::performance::load_generator::CONNECTIONS;

/// Returns the variants: label, program prefix, share of traces.
fn hops() -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    let layers = TELEMETRY.map(|(telemetry, sampled)| (telemetry, "full", sampled));
    [BARE, READS].map(|name| (name, "bare", None)).into_iter().chain(layers).collect()
}

pub(super) fn all(collector: &str, mongo: &Mongo) -> Vec<(SystemUnderTest, [Child; 2])> {
    let (user_key, gateway_key) = (pem(), pem());
    let token = token(&user_key);
    let spawn = |command: &Command| {
        let child = Child::spawn(command, None, Signal::KILL).expect("the hop can be started");
        let url = child.wait_for_line(|line| line.starts_with("http://").then(|| line.trim().to_owned()));
        let url = url.unwrap_or_else(|| panic!("hop process did not start: {}", child.last_lines()));
        (child, url)
    };
    let start = |role: &str, more: &[(&str, &str)]| {
        let mut command = Command::new(program());
        command.args(["--role", role]).env("USER_KEY", &user_key).env("GATEWAY_KEY", &gateway_key).env("COLLECTOR", collector);
        spawn(command.env_remove("SAMPLED").envs(more.iter().copied()))
    };
    let reader = || {
        let mut command = Command::new(env::current_exe().expect("path of the current executable is known"));
        spawn(command.arg("read").arg(mongo.url("reader")))
    };
    let hop = |(telemetry, programs, sampled): (&'static str, &str, Option<&str>)| {
        let sampled: Vec<_> = sampled.map(|share| ("SAMPLED", share)).into_iter().collect();
        let (backend, backend_url) = if telemetry == READS { reader() } else { start(&format!("{programs}-backend"), &sampled) };
        let (gateway, url) = start(&format!("{programs}-gateway"), &[&sampled[..], &[("BACKEND", backend_url.as_str())]].concat());
        let request = Request {
            route: "GET /check",
            url: format!("{url}/check"),
            token: token.clone(),
            products: Vec::new(),
            connections: CONNECTIONS,
            rate: 300,
        };
        let processes = Processes {
            services: vec![("gateway", gateway.id()), ("backend", backend.id())],
            databases: if telemetry == READS { vec![(MONGO, mongo.process_id())] } else { Vec::new() },
        };
        (SystemUnderTest { stores: HOP, telemetry, processes, requests: vec![request] }, [gateway, backend])
    };
    hops().into_iter().map(hop).collect()
}

fn program() -> std::path::PathBuf {
    let executable = env::current_exe().expect("path of the current executable is known");
    let hop = executable.parent().unwrap_or(Path::new(".")).join("hop");
    assert!(hop.exists(), "{} is missing: build it with `make performance`", hop.display());
    hop
}

fn pem() -> String {
    SigningKey::generate_pem().expect("key generation succeeds").expose_secret().to_owned()
}

fn token(key: &str) -> String {
    let key = SigningKey::from_pem(&key.to_owned().into()).expect("valid PEM key");
    let token = UserToken {
        subject: "alice".to_owned(),
        scope: "bench:read".to_owned(),
        issuer: "users".to_owned(),
        audience: "gateway".to_owned(),
        lifetime: Duration::from_hours(4),
    };
    mint_user_token(&token, &key, SystemClock.now().unix_timestamp()).expect("a token can be signed")
}
