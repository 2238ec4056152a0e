//! `corelog`: the command line. Each command is a file; `arguments.rs` says what can be asked,
//! `failure.rs` what can go wrong and with which exit code, `context.rs` whom to ask and how.
//!
//! Answers go to stdout, as text for people or as JSON for programs; everything else to stderr.

mod arguments;
mod cluster;
mod consume;
mod context;
mod failure;
mod output;
mod place;
mod produce;
mod status;
mod topic;
mod units;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use arguments::{Arguments, Command};
use context::Context;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough: `corelog consume … | head`.
        Err(Failure { is_quiet: true, .. }) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report(json);
            failure.exit.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { broker, json, timeout, command } = arguments;
    let context = Context { broker, timeout };
    let mut output = Output::new(json);
    match command {
        Command::Topic { command } => topic::run(&context, &mut output, command)?,
        Command::Produce(command) => produce::run(&context, &mut output, &command)?,
        Command::Consume(command) => consume::run(&context, &mut output, &command)?,
        Command::Status(command) => status::run(&context, &mut output, &command)?,
        Command::Cluster { command } => cluster::run(&context, &mut output, command)?,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "corelog", &mut script);
            output.bytes(&script)?;
        }
    }
    output.flush()
}
