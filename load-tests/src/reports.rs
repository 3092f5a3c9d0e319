//! Report files in `target/load-reports/`, as Markdown and HTML.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::html;

/// Returns the report directory, created if needed.
pub fn folder() -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/load-reports");
    fs::create_dir_all(&folder)?;
    folder.canonicalize()
}

/// Writes a report as Markdown and HTML.
pub fn keep(name: &str, markdown: &str) -> io::Result<()> {
    let folder = folder()?;
    fs::write(folder.join(format!("{name}.md")), markdown)?;
    fs::write(folder.join(format!("{name}.html")), html::page(markdown))
}

/// Adds the HTML page to the Markdown report of a k6 script. Returns `false` if the run wrote none
/// because it failed to start.
pub fn complete(scenario: &str) -> io::Result<bool> {
    match fs::read_to_string(folder()?.join(format!("{scenario}.md"))) {
        Ok(report) => keep(scenario, &report).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
