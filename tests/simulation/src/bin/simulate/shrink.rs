//! Shrinks a failed seed: leaves out faults and clients as long as the same invariant is broken,
//! and prints the story of the rest.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use palisade_simulation::plan::Plan;
use serde_json::Value;

use super::batch::{self, Variation};

/// Prints the smallest story that breaks the invariant of `result`, and how to repeat it.
pub(super) fn explain(out: &mut impl Write, seed: u64, result: &Value) -> anyhow::Result<()> {
    let plan = Plan::new(seed);
    let mut less = Variation::default();
    let breaks = |less: &Variation<'_>| anyhow::Ok(batch::result(seed, less)?["invariant"] == result["invariant"]);
    for fault in &plan.faults {
        less.without_faults.push(fault.number);
        if !breaks(&less)? {
            less.without_faults.pop();
        }
    }
    for client in &plan.clients {
        less.without_clients.push(client.number);
        if less.without_clients.len() == plan.clients.len() || !breaks(&less)? {
            less.without_clients.pop();
        }
    }
    let mut arguments = vec!["--seed".to_owned(), seed.to_string()];
    arguments.extend(less.arguments());
    let story = Command::new(std::env::current_exe()?).args(&arguments).stdin(Stdio::null()).output()?;
    writeln!(out, "{}{}", String::from_utf8_lossy(&story.stderr), String::from_utf8_lossy(&story.stdout))?;
    writeln!(
        out,
        "seed {seed} breaks an invariant: {}\n  {}\n  repeat: make simulate SEED={seed}\n  smallest: simulate {}",
        result["invariant"].as_str().unwrap_or_default(),
        result["evidence"].as_str().unwrap_or_default(),
        arguments.join(" ")
    )?;
    Ok(())
}
