//! Several brokers in one process, for a first look, for tests and for measurements: real sockets and files, and every
//! broker with its own directory. They share cores, so nothing here says how fast a cluster is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use corelog_protocol::ids::ClusterId;

use crate::config::{Config, ConfigError};
use crate::driver::{Broker, StartError};

/// The most brokers of a local cluster.
pub const LOCAL_BROKERS_MAX: usize = 9;

/// Brokers 1, 2, 3, … on loopback, any of which may be down.
#[derive(Debug)]
pub struct LocalCluster {
    configs: Vec<Config>,
    brokers: Vec<Option<Broker>>,
}

impl LocalCluster {
    /// Starts `count` brokers whose data is in `folder/1`, `folder/2` and so on. A cluster that was there before goes on.
    ///
    /// `settings`: what they have in common; addresses, directories and `[cluster]` are filled in. With port 0 the kernel
    /// chooses the ports, else they are `listen`, one above it, and so on.
    ///
    /// # Errors
    /// As [`Broker::start`]; and if `count` is not 1 to [`LOCAL_BROKERS_MAX`].
    pub fn start(folder: &Path, count: usize, settings: &Config) -> Result<Self, StartError> {
        Self::start_each(folder, count, settings, |_, _| {})
    }

    /// The same, and `adjust` changes what is special about each broker, named by its place from 0: its rack, say.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_each(
        folder: &Path,
        count: usize,
        settings: &Config,
        adjust: impl Fn(usize, &mut Config),
    ) -> Result<Self, StartError> {
        if !(1..=LOCAL_BROKERS_MAX).contains(&count) {
            let text =
                format!("A local cluster has 1 to {LOCAL_BROKERS_MAX} brokers, not {count}.");
            return Err(StartError::Config(ConfigError(text)));
        }
        let addresses = addresses(settings.listen, count)?;
        let named = |(number, address): (usize, &SocketAddr)| format!("{number}@{address}");
        let brokers: Vec<String> = (1..).zip(&addresses).map(named).collect();
        let mut cluster = Self { configs: Vec::new(), brokers: Vec::new() };
        for (number, address) in (1..).zip(&addresses) {
            let mut config = settings.clone();
            if config.cores.is_empty() {
                // Else all first shards would be on the same core.
                config.cores = corelog_tuning::allowed_cores();
                let cores = config.cores.len().max(1);
                config.cores.rotate_left((number as usize - 1) % cores);
            }
            config.listen = *address;
            config.data = vec![folder.join(number.to_string())];
            config.cluster.broker = number;
            config.cluster.brokers.clone_from(&brokers);
            if config.cluster.id.is_empty() {
                config.cluster.id = cluster_id(folder)?;
            }
            adjust(number as usize - 1, &mut config);
            cluster.configs.push(config);
            cluster.brokers.push(None);
        }
        for at in 0..count {
            cluster.restart(at)?;
        }
        Ok(cluster)
    }

    /// Adds a broker that is there from now on: it joins the others. Returns its place; its number is one more, as no
    /// broker here had before.
    ///
    /// # Errors
    /// As [`Broker::start`]; and if there are [`LOCAL_BROKERS_MAX`] already.
    pub fn join(&mut self) -> Result<usize, StartError> {
        let at = self.configs.len();
        let Some(first) = self.configs.first().filter(|_| at < LOCAL_BROKERS_MAX) else {
            let text = format!("A local cluster has 1 to {LOCAL_BROKERS_MAX} brokers.");
            return Err(StartError::Config(ConfigError(text)));
        };
        let mut config = first.clone();
        let number = at as u32 + 1;
        // The first of all brokers is on the first core.
        let cores = config.cores.len().max(1);
        config.cores.rotate_left(at % cores);
        let folder = first.data.first().and_then(|first| first.parent()).map(Path::to_owned);
        config.data = vec![folder.unwrap_or_default().join(number.to_string())];
        config.listen = addresses(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 1)?[0];
        config.cluster.broker = number;
        config.cluster.join = true;
        config.cluster.brokers.push(format!("{number}@{}", config.listen));
        self.configs.push(config);
        self.brokers.push(None);
        self.restart(at)?;
        Ok(at)
    }

    /// Starts a broker that is down, by its place from 0.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn restart(&mut self, at: usize) -> Result<(), StartError> {
        if self.brokers[at].is_none() {
            self.brokers[at] = Some(Broker::start(self.configs[at].clone())?);
        }
        Ok(())
    }

    /// Stops one at once, as a crash would.
    pub fn kill(&mut self, at: usize) {
        if let Some(broker) = self.brokers[at].take() {
            broker.abort();
        }
    }

    /// Stops all that run at the same moment, as a power cut would.
    pub fn kill_all(&mut self) {
        let running: Vec<Broker> = self.brokers.iter_mut().filter_map(Option::take).collect();
        std::thread::scope(|scope| {
            for broker in running {
                scope.spawn(move || broker.abort());
            }
        });
    }

    /// Stops one in good order.
    pub fn stop_one(&mut self, at: usize) {
        if let Some(broker) = self.brokers[at].take() {
            broker.stop();
        }
    }

    /// Stops all in good order.
    pub fn stop(mut self) {
        for broker in self.brokers.iter_mut().filter_map(Option::take) {
            broker.stop();
        }
    }

    pub fn brokers(&self) -> &[Option<Broker>] {
        &self.brokers
    }

    /// Where clients may begin.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.configs.iter().map(|config| config.listen).collect()
    }

    pub fn config(&self, at: usize) -> &Config {
        &self.configs[at]
    }
}

/// Ports that are free now, or those that were asked for.
fn addresses(listen: SocketAddr, count: usize) -> Result<Vec<SocketAddr>, StartError> {
    if listen.port() != 0 {
        let port = |at: usize| u16::try_from(usize::from(listen.port()) + at).ok();
        let address = |at| port(at).map(|port| SocketAddr::new(listen.ip(), port));
        return (0..count).map(address).collect::<Option<_>>().ok_or_else(|| {
            StartError::Config(ConfigError(format!("There are no {count} ports from {listen} on.")))
        });
    }
    let failed = |error| StartError::Listen { address: listen, error };
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>().map_err(failed)
}

/// The cluster's id, kept in the folder so that a cluster can be started again.
fn cluster_id(folder: &Path) -> Result<String, StartError> {
    let path: PathBuf = folder.join("cluster.id");
    let failed = |action, error| StartError::Directory { path: path.clone(), action, error };
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let id = format!("{:032x}", ClusterId(super::broker::random_u128()).0);
    std::fs::create_dir_all(folder).map_err(|error| failed("make", error))?;
    std::fs::write(&path, &id).map_err(|error| failed("write", error))?;
    Ok(id)
}
