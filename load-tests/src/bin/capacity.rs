//! `capacity [seconds]`: measures what the shop costs, in rounds of so many seconds, and writes `docs/performance.md`. `capacity collect` is its
//! collector, `capacity read` a bare service that reads from MongoDB.

use std::{env, fs, path::Path, process::ExitCode};

use palisade_load_tests::{performance, reports};

#[expect(clippy::print_stderr, reason = "a program for people")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let seconds = match env::args().nth(1).as_deref() {
        Some("collect") => {
            performance::collect().await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("read") => {
            performance::read(&env::args().nth(2).ok_or_else(|| anyhow::anyhow!("which database?"))?).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(text) => text.parse()?,
        None => 5,
    };
    let page = performance::page(&performance::measure(seconds, |line| eprintln!("{line}")).await);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md"), &page)?;
    reports::keep("performance", &page)?;
    Ok(ExitCode::SUCCESS)
}
