//! `corelogd`: one broker as a process. Reads its configuration, runs until it is asked to stop
//! (SIGTERM or SIGINT), and says on stderr, in one sentence, why it does not start.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::exit;

use clap::Parser;
use corelog_broker::config::{Config, ConfigError};
use corelog_broker::driver::{Broker, StartError, StopSignal};

/// The Corelog broker.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration, a TOML file. Without it every setting has its default.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Says whether the configuration is good, and starts nothing.
    #[arg(long)]
    check_config: bool,
    /// Prints the commented configuration with every default, and starts nothing.
    #[arg(long)]
    print_config: bool,
    /// The least severe lines to log: error, warn, info, debug or trace.
    #[arg(long, default_value = "info")]
    log_level: tracing::Level,
}

fn main() {
    let arguments = Arguments::parse();
    if arguments.print_config {
        print!("{}", corelog_broker::config::DOCUMENTED);
        return;
    }
    // Lines of the `log` crate, which glommio uses, come out as well.
    tracing_subscriber::fmt()
        .with_max_level(arguments.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let config = read_config(&arguments).unwrap_or_else(|error| refuse(&error));
    if arguments.check_config {
        println!("The configuration is good.");
        return;
    }
    // Before any thread exists, so that all of them leave the signals to this one.
    let signal = StopSignal::block();
    let broker = Broker::start(config).unwrap_or_else(|error| refuse(&error));
    println!("corelogd listens on {} with {} shards.", broker.address(), broker.shards());
    let name = signal.wait();
    tracing::info!(signal = name, "stopping");
    broker.stop();
    tracing::info!("stopped");
}

fn read_config(arguments: &Arguments) -> Result<Config, StartError> {
    let Some(path) = &arguments.config else { return Ok(Config::default()) };
    let text = std::fs::read_to_string(path).map_err(|error| {
        ConfigError(format!(
            "Cannot read the configuration {} ({error}): check the path and its permissions.",
            path.display()
        ))
    })?;
    Ok(Config::parse(&text)?)
}

fn refuse(error: &StartError) -> ! {
    eprintln!("{error}");
    exit(error.exit_code());
}
