//! All-in-one binary: gateway, products and orders in one process, connected by gRPC over loopback;
//! and the subcommands for tokens, keys, stores and erasure.

mod all_in_one;
mod commands;
mod config;
mod console;
mod data_dir;
mod demo;
mod erase;

use std::{io::Write, process::ExitCode};

use clap::Command;
use palisade_events::NAMING;
use palisade_middleware::{
    config::{Invocation, Loaded, command, help_all, load},
    process::{ServiceConfig, run_configured},
    telemetry::TrustBoundary,
};

use crate::config::Config;

const ABOUT: &str = "All services in one process: gateway, products and orders with embedded stores.";

fn main() -> ExitCode {
    if let Err(error) = NAMING.install() {
        let _ = writeln!(std::io::stderr(), "palisade: {error}");
        return ExitCode::FAILURE;
    }
    let command = command::<Config>("palisade", ABOUT, Config::COMMON_SETTINGS)
        .subcommands(commands::commands())
        .args_conflicts_with_subcommands(false);
    let matches = match command.try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            return run_configured::<Config, _, _>(
                "palisade",
                &all_in_one::SERVICES,
                TrustBoundary::Public,
                Err(error.into()),
                all_in_one::start,
            );
        }
    };
    if let Some((name, arguments)) = matches.subcommand() {
        return match commands::run(name, arguments, &matches) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "palisade {name}: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let help = || Loaded { invocation: Invocation::<Config>::Help(help_all::<Config>("palisade", ABOUT)), warnings: Vec::new() };
    let loaded = if matches.get_flag("help-all") { Ok(help()) } else { load(&matches) };
    run_configured("palisade", &all_in_one::SERVICES, TrustBoundary::Public, loaded, all_in_one::start)
}

/// Subcommand with a one-line description.
fn subcommand(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about)
}
