//! Runs some seeds of the simulation, a part of them twice.

use std::process::Command;

/// Seeds that fit in about fifty seconds of CPU. The nightly workflow runs 100,000.
const SEEDS: &str = "0..40";

#[test]
fn invariants_hold_for_all_seeds() {
    let run = Command::new(env!("CARGO_BIN_EXE_simulate")).args(["--seeds", SEEDS]).output().expect("the program starts");
    let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{error}");
}

/// Planted faults that one of the first seeds finds. `make planted-faults` runs all of them.
const FOUND_AT_ONCE: [&str; 22] = [
    "backoff that never ends",
    "cancellation without release",
    "event lost",
    "event marked but not published",
    "fingerprint ignored",
    "first line only",
    "fulfilment not sent",
    "fulfilment without ledger entry",
    "illegal transition",
    "key forgotten",
    "key of another user",
    "owner not checked",
    "release acknowledged before its commit",
    "release not sent",
    "released twice",
    "repeated reserve takes again",
    "reservation acknowledged before its commit",
    "retry makes another order",
    "scope not checked",
    "units not given back",
    "worker forgets its orders",
    "wrong total",
];

#[test]
fn planted_faults_are_found() {
    for fault in FOUND_AT_ONCE {
        let arguments = ["--planted-faults", fault, "--limit", "10"];
        let run = Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().expect("the program starts");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    }
}
