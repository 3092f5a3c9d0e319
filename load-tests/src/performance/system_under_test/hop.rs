//! The hop of the middleware's bench: an axum handler that makes one tonic call, bare, bare before a read from MongoDB, and with all
//! layers, as processes of their own.

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

use super::{BARE, HOP, READS, Request, SystemUnderTest, TELEMETRY};

/// What is compared: how it is called, the gateway, the share of traces.
fn hops() -> Vec<(&'static str, &'static str, Option<&'static str>)> {
    let layers = TELEMETRY.map(|(telemetry, sampled)| (telemetry, "full", sampled));
    [BARE, READS].map(|name| (name, "bare", None)).into_iter().chain(layers).collect()
}

pub(super) fn all(collector: &str, mongo: &Mongo) -> Vec<(SystemUnderTest, [Child; 2])> {
    let (user_key, gateway_key) = (pem(), pem());
    let token = token(&user_key);
    let listens = |command: &Command| {
        let child = Child::spawn(command, None, Signal::KILL).expect("the hop can be started");
        let url = child.line(|line| line.starts_with("http://").then(|| line.trim().to_owned()));
        let url = url.unwrap_or_else(|| panic!("the hop does not listen: {}", child.log()));
        (child, url)
    };
    let start = |role: &str, more: &[(&str, &str)]| {
        let mut command = Command::new(program());
        command.args(["--role", role]).env("USER_KEY", &user_key).env("GATEWAY_KEY", &gateway_key).env("COLLECTOR", collector);
        listens(command.env_remove("SAMPLED").envs(more.iter().copied()))
    };
    let reader = || {
        let mut command = Command::new(env::current_exe().expect("a program knows where it is"));
        listens(command.arg("read").arg(mongo.url("reader")))
    };
    let one = |(telemetry, programs, sampled): (&'static str, &str, Option<&str>)| {
        let sampled: Vec<_> = sampled.map(|share| ("SAMPLED", share)).into_iter().collect();
        let (backend, at) = if telemetry == READS { reader() } else { start(&format!("{programs}-backend"), &sampled) };
        let (gateway, url) = start(&format!("{programs}-gateway"), &[&sampled[..], &[("BACKEND", at.as_str())]].concat());
        let request = Request { route: "GET /check", url: format!("{url}/check"), token: token.clone(), products: Vec::new(), rate: 300 };
        let subject = SystemUnderTest {
            stores: HOP,
            telemetry,
            processes: vec![("gateway", gateway.id()), ("backend", backend.id())],
            databases: if telemetry == READS { vec![mongo.process_id()] } else { Vec::new() },
            requests: vec![request],
        };
        (subject, [gateway, backend])
    };
    hops().into_iter().map(one).collect()
}

fn program() -> std::path::PathBuf {
    let this = env::current_exe().expect("a program knows where it is");
    let hop = this.parent().unwrap_or(Path::new(".")).join("hop");
    assert!(hop.exists(), "{} is missing: `make performance` builds it", hop.display());
    hop
}

fn pem() -> String {
    SigningKey::generate_pem().expect("randomness is there").expose_secret().to_owned()
}

fn token(key: &str) -> String {
    let key = SigningKey::from_pem(&key.to_owned().into()).expect("a key");
    let token = UserToken {
        subject: "alice".to_owned(),
        scope: "bench:read".to_owned(),
        issuer: "users".to_owned(),
        audience: "gateway".to_owned(),
        lifetime: Duration::from_hours(4),
    };
    mint_user_token(&token, &key, SystemClock.now().unix_timestamp()).expect("a token can be signed")
}
