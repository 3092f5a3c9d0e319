//! `simulate`: runs one seed in this process, or many in processes of their own.
//!
//! A seed needs a process of its own, because the randomness of the operating system, which the
//! libraries read, is replaced once per process.

mod batch;
mod planted;
mod shrink;

use std::{
    io::Write,
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use palisade_events::NAMING;
use palisade_middleware::{network, telemetry::Telemetry};
use palisade_simulation::{
    network::Turmoil,
    plan::Plan,
    run::{self, Outcome, Stores},
    services::SigningKeys,
};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::json;

use self::batch::OWN;

/// Stack of the simulation, whose futures are deep in unoptimized builds.
const STACK_BYTES: usize = 64 * 1024 * 1024;

static PANICS: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let numbers = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).help(help).value_delimiter(',').value_parser(value_parser!(usize)).action(ArgAction::Append)
    };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).action(ArgAction::SetTrue);
    let matches = Command::new("simulate")
        .about("Deterministic simulation of gateway, products and orders.")
        .arg(Arg::new("seed").long("seed").help("Runs this seed and prints its story.").value_parser(value_parser!(u64)))
        .arg(Arg::new("seeds").long("seeds").help("Runs the seeds a..b, each in a process of its own.").conflicts_with("seed"))
        .arg(
            Arg::new("planted-faults")
                .long("planted-faults")
                .help("Runs the planted faults whose name contains this text until a seed finds them.")
                .num_args(0..=1)
                .default_missing_value(""),
        )
        .arg(Arg::new("limit").long("limit").help("Seeds until which each planted fault must be found.").value_parser(value_parser!(u64)))
        .arg(flag("write", "Writes the table of planted faults to docs/simulation.md."))
        .arg(numbers("without-faults", "Leaves out these faults."))
        .arg(numbers("without-clients", "Leaves out these clients."))
        .arg(Arg::new("planted").long("planted").help("Switches on a planted fault (builds with debug assertions)."))
        .arg(flag("result", "Prints the result as JSON instead of the story."))
        .arg(flag("log", "Prints the log of the services to standard error."))
        .get_matches();
    if let Some(only) = matches.get_one::<String>("planted-faults") {
        return exit(planted::run(only, matches.get_one("limit").copied(), matches.get_flag("write")));
    }
    let result = match (matches.get_one::<u64>("seed"), matches.get_one::<String>("seeds")) {
        (Some(seed), _) => one(*seed, &matches),
        (None, seeds) => batch::run(seeds.map_or("0..100", String::as_str)),
    };
    exit(result)
}

fn exit(result: anyhow::Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "simulate: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs one seed. Returns whether all invariants hold.
fn one(seed: u64, matches: &ArgMatches) -> anyhow::Result<bool> {
    let numbers = |name: &str| matches.get_many::<usize>(name).map(|numbers| numbers.copied().collect::<Vec<_>>()).unwrap_or_default();
    if matches.get_flag("log") {
        tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::stderr).init();
    }
    if let Some(fault) = matches.get_one::<String>("planted") {
        palisade_middleware::planted::activate(fault);
    }
    let mut plan = Plan::new(seed);
    plan.remove(&numbers("without-faults"), &numbers("without-clients"));
    let summary = plan.summary();
    let faults = plan.faults.len();
    let outcome = simulate(plan)?;
    let mut violation = outcome.violation.clone().map(|violation| (violation.invariant.to_owned(), violation.evidence));
    let panics = PANICS.load(Ordering::Relaxed);
    if panics > 0 && violation.is_none() {
        violation = Some(("no code panics".to_owned(), format!("{panics} panics")));
    }
    let mut out = std::io::stdout().lock();
    let hash = format!("{:016x}", outcome.story.hash());
    if matches.get_flag("result") {
        let result = json!({
            "seed": seed, "hash": hash, "summary": summary, "faults": faults, "orders": outcome.orders,
            "storeCalls": outcome.store_calls.0, "storeFailures": outcome.store_calls.1,
            "simulatedMs": u64::try_from(outcome.simulated.as_millis())?, "cpuMs": batch::cpu_ms(OWN),
            "invariant": violation.as_ref().map(|(invariant, _)| invariant), "evidence": violation.as_ref().map(|(_, evidence)| evidence),
        });
        writeln!(out, "{result}")?;
    } else {
        writeln!(out, "seed {seed}: {summary}\n{}", outcome.story.text(true))?;
        match &violation {
            Some((invariant, evidence)) => writeln!(out, "VIOLATED: {invariant}\n  {evidence}")?,
            None => writeln!(out, "all invariants hold")?,
        }
        writeln!(out, "{} orders, {:.1} s simulated, hash {hash}", outcome.orders, outcome.simulated.as_secs_f64())?;
    }
    Ok(violation.is_none())
}

fn simulate(plan: Plan) -> anyhow::Result<Outcome> {
    NAMING.install()?;
    network::install(Box::new(Turmoil))?;
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        default_hook(panic);
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let telemetry = {
        let _entered = runtime.enter();
        Telemetry::detached()
    };
    let keys = SigningKeys::new()?;
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    let stores = Stores::open(directory.path(), &plan)?;
    // From here on the randomness of the operating system follows the seed. A thread of its own has
    // no random state yet.
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(plan.seed));
    let simulation = thread::Builder::new().name("simulation".to_owned()).stack_size(STACK_BYTES);
    let simulation = simulation.spawn(move || run::run(plan, stores, &keys, &telemetry))?;
    simulation.join().unwrap_or_else(|_| anyhow::bail!("the simulation panicked"))
}
