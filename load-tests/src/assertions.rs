//! Assertions with measured values, rendered as a table.

use std::fmt;

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
        self.0.iter().all(|claim| claim.passed)
    }

    /// Adds an assertion.
    pub fn add(&mut self, text: impl Into<String>, holds: bool, measured: impl Into<String>) {
        self.0.push(Assertion { text: text.into(), passed: holds, measured: measured.into() });
    }
}

impl fmt::Display for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| assertion | measured | passed |\n|---|---|---|")?;
        for Assertion { text, measured, passed: holds } in &self.0 {
            writeln!(f, "| {text} | {measured} | {} |", if *holds { "yes" } else { "**NO**" })?;
        }
        Ok(())
    }
}
