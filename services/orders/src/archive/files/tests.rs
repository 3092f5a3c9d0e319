use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;
use time::macros::date;

use super::*;

const DAY: Date = date!(2026 - 11 - 30);

fn read(directory: &Path) -> String {
    fs::read_to_string(directory.join("orders-2026-11-30.ndjson")).unwrap()
}

/// Replaces the line `a`.
fn replace(line: &[u8]) -> serde_json::Result<Option<String>> {
    let value: serde_json::Value = serde_json::from_slice(line)?;
    Ok((value == "a").then(|| "\"erased\"".to_owned()))
}

#[test]
fn append_creates_one_private_file_per_day() {
    let directory = TempDir::new().unwrap();
    append(directory.path(), DAY, b"1\n").unwrap();
    append(directory.path(), DAY, b"2\n3\n").unwrap();
    append(directory.path(), DAY.next_day().unwrap(), b"4\n").unwrap();
    assert_eq!(read(directory.path()), "1\n2\n3\n");
    let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(files.len(), 2);
    assert!(files.iter().all(|file| file.metadata().unwrap().permissions().mode() & 0o777 == PRIVATE));
}

#[test]
fn append_removes_a_torn_line() {
    let directory = TempDir::new().unwrap();
    for torn in ["{\"id\":", &"x".repeat(200_000)] {
        fs::write(directory.path().join("orders-2026-11-30.ndjson"), format!("1\n{torn}")).unwrap();
        append(directory.path(), DAY, b"2\n").unwrap();
        assert_eq!(read(directory.path()), "1\n2\n");
    }
    fs::write(directory.path().join("orders-2026-11-30.ndjson"), "torn").unwrap();
    append(directory.path(), DAY, b"2\n").unwrap();
    assert_eq!(read(directory.path()), "2\n");
}

#[test]
fn full_disk_and_missing_directory_are_errors() {
    // Every write to this device fails like one to a full disk.
    let directory = TempDir::new().unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.path().join("orders-2026-11-30.ndjson")).unwrap();
    assert!(append(directory.path(), DAY, b"1\n").is_err());
    let missing = directory.path().join("missing");
    let error = try_lock(&missing).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
    assert!(append(&missing, DAY, b"1\n").is_err());
}

#[test]
fn lock_excludes_others_until_dropped() {
    let directory = TempDir::new().unwrap();
    let held = try_lock(directory.path()).unwrap().unwrap();
    assert!(try_lock(directory.path()).unwrap().is_none());
    drop(held);
    drop(lock(directory.path()).unwrap());
}

#[test]
fn rewrite_replaces_lines_and_keeps_the_others() {
    let directory = TempDir::new().unwrap();
    append(directory.path(), DAY, b"\"a\"\n\"b\"\n\"a\"\n").unwrap();
    append(directory.path(), DAY.next_day().unwrap(), b"\"b\"\n").unwrap();
    assert_eq!(rewrite(directory.path(), replace).unwrap(), 2);
    assert_eq!(read(directory.path()), "\"erased\"\n\"b\"\n\"erased\"\n");
    assert_eq!(rewrite(directory.path(), replace).unwrap(), 0, "idempotent");
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["orders-2026-11-30.ndjson", "orders-2026-12-01.ndjson"]);
    let mode = fs::metadata(directory.path().join(&names[0])).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, PRIVATE);
}

#[test]
fn rewrite_reports_a_line_that_is_not_json() {
    let directory = TempDir::new().unwrap();
    append(directory.path(), DAY, b"\"a\"\nnonsense\n").unwrap();
    let parse = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).map(|_| Some("1".to_owned()));
    let error = rewrite(directory.path(), parse).unwrap_err().to_string();
    assert!(error.contains("line 2") && error.contains("2026-11-30"), "{error}");
    assert_eq!(read(directory.path()), "\"a\"\nnonsense\n");
}
