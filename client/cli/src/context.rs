//! Whom to ask, and for how long.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use corelog::{Admin, Builder, Client, Error};

use crate::failure::{Exit, Failure};

pub struct Context {
    pub broker: String,
    pub timeout: Duration,
}

impl Context {
    /// A client of the broker, once something has answered at its address: a client alone would try
    /// until its deadline, which is right for a service and long for a person.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_with(|builder| builder)
    }

    /// The same, with settings of its own.
    pub fn connect_with(&self, set: impl FnOnce(Builder) -> Builder) -> Result<Client, Failure> {
        let addresses: Vec<SocketAddr> = match self.broker.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                return Err(Failure::new(
                    Exit::Input,
                    format!("{} is no address of a broker: {error}", self.broker),
                )
                .fix("write HOST:PORT, such as 127.0.0.1:7420"));
            }
        };
        self.knock(&addresses)?;
        set(Client::builder().address(&addresses[..]).name("corelog-cli"))
            .connect()
            .map_err(|error| Failure::unreachable(&self.broker, &error.to_string()))
    }

    /// Whether anything listens at one of the addresses.
    fn knock(&self, addresses: &[SocketAddr]) -> Result<(), Failure> {
        let mut why = String::from("the name has no address");
        for address in addresses {
            match TcpStream::connect_timeout(address, self.timeout.max(Duration::from_millis(1))) {
                Ok(_) => return Ok(()),
                Err(error) => why = error.to_string(),
            }
        }
        Err(Failure::unreachable(&self.broker, &why))
    }

    pub fn admin(&self, client: &Client) -> Admin {
        client.admin().timeout(self.timeout)
    }

    /// What a failed request about a topic comes to.
    pub fn of_topic<'a>(&'a self, topic: &'a str) -> impl Fn(Error) -> Failure + 'a {
        move |error| Failure::of_topic(&self.broker, topic, &error)
    }

    /// What a failed request about the broker comes to.
    pub fn of_broker(&self, error: &Error) -> Failure {
        Failure::of_broker(&self.broker, error)
    }
}
