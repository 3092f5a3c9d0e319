//! Performance measurement: order path, CPU time per request, memory and start-up time. Writes
//! `docs/performance.md`.
//!
//! Argument: seconds per round (default 5). `serve [files]` only starts the shop, on database
//! servers or on files, to be measured beside another system: it prints one line of JSON with URL,
//! processes, token and products, and ends with its standard input. `collect` runs the trace
//! collector process, `read <url>` the baseline service that reads from MongoDB.

use std::{env, fs, path::Path, process::ExitCode};

use palisade_load_tests::{performance, reports};

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "command line output")]
#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let seconds = match env::args().nth(1).as_deref() {
        Some("collect") => {
            performance::run_collector().await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some("serve") => {
            performance::serve(env::args().nth(2).as_deref() != Some("files"), |line| println!("{line}")).await;
            return Ok(ExitCode::SUCCESS);
        }
        Some("read") => {
            let url = env::args().nth(2).ok_or_else(|| anyhow::anyhow!("missing argument: database URL"))?;
            performance::run_baseline_reader(&url).await?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(text) => text.parse()?,
        None => 5,
    };
    let page = performance::page(&performance::measure(seconds, |line| eprintln!("{line}")).await);
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md"), &page)?;
    reports::write("performance", &page)?;
    Ok(ExitCode::SUCCESS)
}
