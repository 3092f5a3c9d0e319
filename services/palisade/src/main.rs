//! Gateway, products and orders in one process, over the same loopback gRPC hops; and the tools around tokens and keys.

mod all_in_one;
mod config;
mod data_dir;
mod commands;

use std::{io::Write, process::ExitCode};

use clap::Command;
use palisade_middleware::{
    config::{Invocation, command, load},
    process::run_configured,
    telemetry::TrustBoundary,
};

use crate::config::Config;

const ABOUT: &str = "A whole shop in one process: gateway, products and orders with embedded stores.";

fn main() -> ExitCode {
    let command = command::<Config>("palisade", ABOUT).subcommands(commands::commands()).args_conflicts_with_subcommands(false);
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            return run_configured::<Config, _, _>("palisade", &all_in_one::SERVICES, TrustBoundary::Public, Err(error.into()), all_in_one::start);
        }
    };
    if let Some((name, arguments)) = matches.subcommand() {
        return match commands::run(name, arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "palisade {name}: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let loaded: Result<Invocation<Config>, _> = load(&matches);
    run_configured("palisade", &all_in_one::SERVICES, TrustBoundary::Public, loaded, all_in_one::start)
}

/// A subcommand with its one line of help.
fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about)
}
