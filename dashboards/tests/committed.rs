//! Committed dashboards and metrics reference match the generator's output.

use std::{fs, path::Path};

#[test]
fn committed_files_match_generator() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = palisade_dashboards::files().unwrap();
    for file in &files {
        let committed = fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(committed == file.text, "{} is stale: run `make dashboards` and commit the result", file.path.display());
    }
    for entry in fs::read_dir(root.join("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        let known = files.iter().any(|file| path.file_name() == file.path.file_name());
        assert!(known || path.extension().is_none_or(|extension| extension != "json"), "{} is not generated", path.display());
    }
}
