//! Runs some seeds of the simulation, a part of them twice.

use std::process::Command;

/// Seeds that fit in about ninety seconds of CPU. The nightly workflow runs 100,000.
const SEEDS: &str = "0..150";

#[test]
fn invariants_hold_for_all_seeds() {
    let run = Command::new(env!("CARGO_BIN_EXE_simulate")).args(["--seeds", SEEDS]).output().expect("the program starts");
    let (out, error) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{error}");
}
