//! `corelog-tune`: looks at a host, and says what the broker would miss on it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use corelog_tuning::{Wanted, inspect};

#[derive(Parser)]
#[command(version, about = "Inspects a host for what the Corelog broker needs.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints the facts that matter, and what is missing. Exits with 1 if the broker cannot run.
    Inspect {
        /// Data directories to look at.
        #[arg(value_name = "DIRECTORY", default_value = ".")]
        directories: Vec<PathBuf>,
        /// Shards that are to run; 0 for one per core.
        #[arg(long, default_value_t = 0)]
        shards: usize,
        /// Registered I/O memory of one shard, bytes.
        #[arg(long, default_value_t = 10 << 20)]
        io_bytes: u64,
        /// Room that each directory must have, bytes.
        #[arg(long, default_value_t = 1 << 30)]
        free_bytes_min: u64,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Command::Inspect { directories, shards, io_bytes, free_bytes_min, json } =
        Arguments::parse().command;
    let report =
        inspect(&Wanted { directories, shards, cores: Vec::new(), io_bytes, free_bytes_min });
    if json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    if report.refusal().is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
