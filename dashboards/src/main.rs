//! Generator: writes the dashboards and the metrics reference into the repository.

use std::{fs, path::Path};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in palisade_dashboards::files()? {
        let path = root.join(&file.path);
        fs::create_dir_all(path.parent().context("generated file has no parent directory")?)?;
        fs::write(&path, file.text).with_context(|| format!("cannot write {}", file.path.display()))?;
    }
    Ok(())
}
