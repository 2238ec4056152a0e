//! How the brokers reach each other: over loopback, or each in a network namespace of its own on one bridge, where the
//! packets of one broker can be kept from another, in one direction or both.
//!
//! A packet is dropped where it arrives, by a routing rule of the receiver: the sender learns nothing, as when a cable
//! is cut. In namespaces the brokers have addresses in 198.18.0.0/15, which is set aside for benchmarks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

const PORT: u16 = 7420;

pub enum Network {
    Loopback { ports: Vec<u16> },
    Namespaces(Namespaces),
}

/// Removed when it is dropped.
pub struct Namespaces {
    /// In front of all names: no two runs share one.
    tag: String,
    subnet: u8,
    /// Of the brokers, from 0.
    made: usize,
}

impl Network {
    pub fn loopback(brokers: usize) -> io::Result<Self> {
        // Below those that the kernel gives to outgoing connections, so that none takes one while its broker is down.
        let first = 20_000 + (std::process::id() % 10_000) as u16;
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        let ports: Vec<u16> = (first..32_768).filter(is_free).take(brokers).collect();
        if ports.len() < brokers {
            return Err(io::Error::other("every port from 20000 to 32767 is taken"));
        }
        Ok(Self::Loopback { ports })
    }

    /// # Errors
    /// If namespaces, a bridge or routing rules are not permitted here.
    pub fn namespaces(brokers: usize) -> io::Result<Self> {
        let own = std::process::id();
        let mut made =
            Namespaces { tag: format!("cl{own}"), subnet: (own % 250) as u8 + 1, made: 0 };
        made.build(brokers).map_err(|error| {
            io::Error::other(format!(
                "partitions need network namespaces, which takes root and the program `ip` ({error}); \
                 with --partitions 0 the brokers share loopback"
            ))
        })?;
        Ok(Self::Namespaces(made))
    }

    /// How many brokers have a place in it.
    pub fn places(&self) -> usize {
        match self {
            Self::Loopback { ports } => ports.len(),
            Self::Namespaces(spaces) => spaces.made,
        }
    }

    pub fn address(&self, broker: usize) -> SocketAddr {
        match self {
            Self::Loopback { ports } => SocketAddr::from((Ipv4Addr::LOCALHOST, ports[broker])),
            Self::Namespaces(spaces) => SocketAddr::new(spaces.host(broker), PORT),
        }
    }

    /// Starts a program where this broker lives.
    pub fn command(&self, broker: usize, program: &std::path::Path) -> Command {
        match self {
            Self::Loopback { .. } => Command::new(program),
            Self::Namespaces(spaces) => {
                // It replaces itself by the program: the process keeps its id.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &spaces.name(broker)]).arg(program);
                command
            }
        }
    }

    /// Nothing that `from` sends reaches `to` any more, or it does again.
    pub fn cut(&self, from: usize, to: usize, is_cut: bool) -> io::Result<()> {
        let Self::Namespaces(spaces) = self else {
            return Err(io::Error::other("loopback cannot be cut"));
        };
        let what = if is_cut { "add" } else { "del" };
        let source = spaces.host(from).to_string();
        let name = spaces.name(to);
        ip(&["-n", &name, "rule", what, "pref", "10", "from", &source, "blackhole"])
    }
}

impl Namespaces {
    fn name(&self, broker: usize) -> String {
        format!("{}n{}", self.tag, broker + 1)
    }

    fn host(&self, broker: usize) -> IpAddr {
        IpAddr::from([198, 18, self.subnet, broker as u8 + 1])
    }

    fn build(&mut self, brokers: usize) -> io::Result<()> {
        let bridge = format!("{}br", self.tag);
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["addr", "add", &format!("198.18.{}.254/24", self.subnet), "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for broker in 0..brokers {
            let name = self.name(broker);
            let cable = format!("{}v{}", self.tag, broker + 1);
            let address = format!("{}/24", self.host(broker));
            ip(&["netns", "add", &name])?;
            self.made = broker + 1;
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
            ip(&["link", "set", &cable, "master", &bridge, "up"])?;
            ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
            // The rule that takes in what is addressed to this host comes behind those that cut.
            ip(&["-n", &name, "rule", "add", "pref", "100", "lookup", "local"])?;
            ip(&["-n", &name, "rule", "del", "pref", "0"])?;
        }
        Ok(())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for broker in 0..self.made {
            let _ = ip(&["netns", "del", &self.name(broker)]);
        }
        let _ = ip(&["link", "del", &format!("{}br", self.tag)]);
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("ip {}: {}", arguments.join(" "), text.trim())))
}
