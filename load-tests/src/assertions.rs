//! What has to be true, beside what was measured.

use std::fmt;

/// Some of them. Printed, they are a table of Markdown.
#[derive(Debug, Default)]
pub struct Assertions(Vec<Claim>);

#[derive(Debug)]
struct Claim {
    text: String,
    measured: String,
    holds: bool,
}

impl Assertions {
    /// Whether all are true.
    pub fn all_passed(&self) -> bool {
        self.0.iter().all(|claim| claim.holds)
    }

    /// One more.
    pub fn add(&mut self, text: impl Into<String>, holds: bool, measured: impl Into<String>) {
        self.0.push(Claim { text: text.into(), holds, measured: measured.into() });
    }
}

impl fmt::Display for Assertions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what has to be true | measured | |\n|---|---|---|")?;
        for Claim { text, measured, holds } in &self.0 {
            writeln!(f, "| {text} | {measured} | {} |", if *holds { "yes" } else { "**NO**" })?;
        }
        Ok(())
    }
}
