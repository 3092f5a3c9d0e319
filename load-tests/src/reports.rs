//! Reports: assertions with measured values, and the files in `target/load-reports/`.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

/// List of assertions. `Display` renders a Markdown table.
#[derive(Debug, Default)]
pub struct Assertions(Vec<Assertion>);

#[derive(Debug)]
struct Assertion {
    text: String,
    measured: String,
    passed: bool,
}

impl Assertions {
    /// Returns whether all assertions passed.
    pub fn all_passed(&self) -> bool {
        self.0.iter().all(|assertion| assertion.passed)
    }

    /// Adds an assertion.
    pub fn add(&mut self, text: impl Into<String>, passed: bool, measured: impl Into<String>) {
        self.0.push(Assertion { text: text.into(), passed, measured: measured.into() });
    }
}

impl fmt::Display for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| assertion | measured | passed |\n|---|---|---|")?;
        for Assertion { text, measured, passed } in &self.0 {
            writeln!(f, "| {text} | {measured} | {} |", if *passed { "yes" } else { "**NO**" })?;
        }
        Ok(())
    }
}

/// Returns the report directory, created if needed.
pub fn folder() -> io::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/load-reports");
    fs::create_dir_all(&folder)?;
    folder.canonicalize()
}

/// Writes a Markdown report.
pub fn write(name: &str, markdown: &str) -> io::Result<()> {
    fs::write(folder()?.join(format!("{name}.md")), markdown)
}
