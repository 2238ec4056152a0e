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
        let addresses = self.knock(self.addresses()?)?;
        set(Client::builder().address(&addresses[..]).name("corelog-cli"))
            .connect()
            .map_err(|error| Failure::unreachable(&self.broker, &error.to_string()))
    }

    /// Of all that were named. A name that is not known now is passed over if another one is.
    fn addresses(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut all = Vec::new();
        let mut wrong = None;
        for named in self.broker.split(',').map(str::trim) {
            match named.to_socket_addrs() {
                Ok(addresses) => all.extend(addresses),
                Err(error) => {
                    wrong.get_or_insert(format!("{named} is no address of a broker: {error}"));
                }
            }
        }
        match wrong {
            Some(wrong) if all.is_empty() => Err(Failure::new(Exit::Input, wrong)
                .fix("write HOST:PORT, such as 127.0.0.1:7420, with commas between several")),
            _ => Ok(all),
        }
    }

    /// The addresses from the first on where anything listens, then those before it.
    fn knock(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
        let mut why = String::from("the name has no address");
        let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let patience = (self.timeout / count).max(Duration::from_millis(1));
        for at in 0..addresses.len() {
            match TcpStream::connect_timeout(&addresses[at], patience) {
                Ok(_) => {
                    addresses.rotate_left(at);
                    return Ok(addresses);
                }
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
