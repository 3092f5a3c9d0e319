//! Writes the dashboards and the page of metrics into the repository.

use std::{fs, path::Path};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in palisade_dashboards::files()? {
        let path = root.join(&file.path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(&path, file.text).with_context(|| format!("{} could not be written", file.path.display()))?;
    }
    Ok(())
}
