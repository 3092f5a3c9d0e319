//! Work of operators on the data of a running shop: retention and archive, erasure of a subject,
//! backup and restore.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

use std::{path::Path, process::Command};

mod backup;
mod erasure;
mod retention;

/// Runs a statement on an embedded store with the command line tool and returns its output.
fn sqlite3(database: &Path, statement: &str) -> String {
    let output = Command::new("sqlite3").arg(database).arg(statement).output();
    let output = output.expect("sqlite3 is missing: run `make tools` as root, or install the package `sqlite3`");
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
