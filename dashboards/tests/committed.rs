//! What is committed is what the program writes.

use std::{fs, path::Path};

#[test]
fn the_files_are_those_that_the_program_writes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = palisade_dashboards::files().unwrap();
    for file in &files {
        let committed = fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(committed == file.text, "{} is stale: run `make dashboards` and commit what it wrote", file.path.display());
    }
    for entry in fs::read_dir(root.join("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let known = files.iter().any(|file| path.file_name() == file.path.file_name());
        assert!(known || path.extension().is_none_or(|extension| extension != "json"), "nothing writes {}", path.display());
    }
}
