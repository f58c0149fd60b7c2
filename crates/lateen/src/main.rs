//! The one binary: which command was asked for?

mod arguments;
mod commands;
mod demo;
mod listening;
mod report;
mod session;

use std::process::ExitCode;

use clap::Parser as _;
use lateen_telemetry::log::Levels;

/// Small allocations in great number are what a proxy does; this allocator keeps them cheap and gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match Levels::choose(arguments.log.as_deref()) {
        Ok(levels) => drop(lateen_telemetry::log::start(&levels)),
        Err(error) => {
            report::failure(&error.into());
            return ExitCode::from(2);
        }
    }
    match commands::run(arguments) {
        Ok(code) => code,
        Err(error) => {
            report::failure(&error);
            ExitCode::FAILURE
        }
    }
}
