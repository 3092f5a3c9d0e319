//! Conformance, judged by programs from elsewhere: schemathesis compares the gateway with its
//! OpenAPI document, promtool reads the metrics of every service.

use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use palisade_tests::{
    Client, Shop,
    shop::{ALL_SCOPES, SERVICES},
};

/// Requests are generated from this seed: a run can be repeated.
const SEED: &str = "1";
/// Phases of schemathesis. Its stateful phase follows the links between operations at random, so it
/// is left to `make conformance`.
const PHASES: &str = "examples,coverage,fuzzing";

/// Metric whose name is that of OpenTelemetry's semantic conventions. promtool takes its `_count`
/// for that of a histogram.
const OTEL_NAME: &str = "db_client_connection_count ";

/// Runs a program. Returns whether it succeeds, and its output.
fn run(command: &mut Command, input: &str) -> (bool, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program is installed");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the program reads its input");
    let output = child.wait_with_output().expect("the program ends");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn gateway_conforms_to_its_openapi_document() {
    let shop = Shop::shared();
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/venv/bin/schemathesis");
    assert!(program.exists(), "schemathesis is missing: install it into .tools/ with `make tools`");
    // It writes to its directory.
    let scratch = tempfile::TempDir::new().unwrap();
    for file in ["schemathesis.toml", "hooks.py"] {
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance").join(file), scratch.path().join(file)).unwrap();
    }
    let mut command = Command::new(program.canonicalize().unwrap());
    command.current_dir(scratch.path());
    command.args(["run", &format!("{}/openapi.json", shop.url()), "--seed", SEED, "--no-color"]);
    command.args(["--phases", &env::var("CONFORMANCE_PHASES").unwrap_or_else(|_| PHASES.to_owned())]);
    command.args(["--header", &format!("Authorization: Bearer {}", shop.token("alice", ALL_SCOPES))]);
    let (accepted, report) = run(&mut command, "");
    assert!(accepted, "{report}");
}

#[tokio::test]
async fn metrics_follow_the_conventions_of_prometheus() {
    for service in SERVICES {
        let metrics = Client::new(Shop::shared().admin_url(service), None).get("/metrics").attempt().await.unwrap().text();
        let (_, findings) = run(Command::new("promtool").args(["check", "metrics"]), &metrics);
        let unknown: Vec<_> = findings.lines().filter(|finding| !finding.starts_with(OTEL_NAME)).collect();
        assert!(unknown.is_empty(), "{service}: {findings}");
    }
}
