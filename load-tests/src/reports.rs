//! Where reports are kept: `target/load-reports/`, each as Markdown and as a page of HTML.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::html;

/// The folder, which is made if it is not there.
pub fn folder() -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/load-reports");
    fs::create_dir_all(&folder)?;
    folder.canonicalize()
}

/// Keeps a report.
pub fn keep(name: &str, markdown: &str) -> io::Result<()> {
    let folder = folder()?;
    fs::write(folder.join(format!("{name}.md")), markdown)?;
    fs::write(folder.join(format!("{name}.html")), html::page(markdown))
}

/// Adds the page to what a k6 script wrote there; a run that could not begin wrote nothing.
pub fn complete(scenario: &str) -> io::Result<bool> {
    match fs::read_to_string(folder()?.join(format!("{scenario}.md"))) {
        Ok(report) => keep(scenario, &report).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
