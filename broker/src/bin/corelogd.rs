//! `corelogd`: one broker as a process. Reads its configuration, runs until it is asked to stop
//! (SIGTERM or SIGINT), and says on stderr, in one sentence, why it does not start.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::exit;

use clap::Parser;
use corelog_broker::config::environment::PREFIX;
use corelog_broker::config::{Config, ConfigError};
use corelog_broker::driver::{Broker, LocalCluster, StartError, StopSignal};

/// The Corelog broker.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration, a TOML file. Without it every setting has its default.
    ///
    /// Environment variables go over the file: CORELOG_LISTEN for `listen`,
    /// CORELOG_LOG_SEGMENT_BYTES for `log.segment_bytes`, and so on.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A data directory. May be given several times, one for each disk. Goes over the file.
    #[arg(long, value_name = "DIRECTORY")]
    data: Vec<PathBuf>,
    /// Where clients connect. Goes over the file.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<SocketAddr>,
    /// Runs this many brokers in this process, on `listen` and the ports above it, with their data in folders of the
    /// first data directory: a cluster to try things out.
    #[arg(long, value_name = "BROKERS")]
    local_cluster: Option<usize>,
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
    if let Some(count) = arguments.local_cluster {
        return run_local_cluster(&config, count, &signal);
    }
    let broker = Broker::start(config).unwrap_or_else(|error| refuse(&error));
    println!("corelogd listens on {} with {} shards.", broker.address(), broker.shards());
    let name = signal.wait();
    tracing::info!(signal = name, "stopping");
    broker.stop();
    tracing::info!("stopped");
}

fn run_local_cluster(config: &Config, count: usize, signal: &StopSignal) {
    let folder = config.data.first().cloned().unwrap_or_default();
    let cluster =
        LocalCluster::start(&folder, count, config).unwrap_or_else(|error| refuse(&error));
    for (number, address) in (1..).zip(cluster.addresses()) {
        println!("broker {number} listens on {address}.");
    }
    let name = signal.wait();
    tracing::info!(signal = name, "stopping");
    cluster.stop();
    tracing::info!("stopped");
}

fn read_config(arguments: &Arguments) -> Result<Config, StartError> {
    let text = match &arguments.config {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|error| {
            ConfigError(format!(
                "Cannot read the configuration {} ({error}): check the path and its permissions.",
                path.display()
            ))
        })?,
    };
    let mut variables = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| {
            ConfigError(format!("The variable `{name}` is no text: write it in UTF-8."))
        })?;
        variables.push((name.to_owned(), value));
    }
    let mut config = Config::load(&text, variables)?;
    if let Some(listen) = arguments.listen {
        config.listen = listen;
    }
    if !arguments.data.is_empty() {
        config.data.clone_from(&arguments.data);
    }
    config.check()?;
    Ok(config)
}

fn refuse(error: &StartError) -> ! {
    eprintln!("{error}");
    exit(error.exit_code());
}
