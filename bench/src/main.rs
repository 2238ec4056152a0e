//! Measures Corelog and proves that it works: `corelog-bench help` lists how.

mod conditions;
mod floor;
mod latency;
mod load;
mod os;
mod place;
mod report;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "corelog-bench", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the least that such a broker could cost on this machine
    Floor {
        /// A folder on the disk to measure (default: under target/)
        #[arg(long)]
        dir: Option<PathBuf>,
        /// Length of each measurement
        #[arg(long, default_value_t = 2.0)]
        seconds: f64,
        /// Print JSON instead of tables
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Floor { dir, seconds, json } => floor::report(dir.as_deref(), seconds, json),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("corelog-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
