//! The settings of `[cluster]`: which of several brokers this one is.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::limits::{DETECT_MS_DEFAULT, REPLICAS_DEFAULT, REPLICAS_MAX};
use crate::metadata::{BROKERS_MAX, RACK_BYTES_MAX};

/// Which of several brokers this one is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// The cluster that the data must belong to, 32 hexadecimal digits. Empty: whatever the
    /// directories say, or a new one.
    pub id: String,
    /// This broker's number. 0: it is alone.
    pub broker: u32,
    /// The brokers that begin the cluster, this one among them: `number@host:port`. Of one that joins: some that are
    /// there, and itself.
    pub brokers: Vec<String>,
    /// The cluster is there already, and this broker's first start adds it. Later starts do not look at it.
    pub join: bool,
    /// `host:port` where others and clients connect. Empty: as in `brokers`; alone, as in `listen`.
    pub advertise: String,
    /// Replicas of one lane are spread over racks. Empty: no rack.
    pub rack: String,
    /// Replicas of a lane, an odd number.
    pub replicas: u32,
    /// A broker that was not heard for so long leads no longer.
    pub detect_ms: u64,
    /// Lanes get other leaders by themselves if that spreads the load.
    pub balance_leaders: bool,
}

/// One of `brokers`: its number, and `host:port`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedBroker {
    pub number: u32,
    pub address: String,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            id: String::new(),
            broker: 0,
            brokers: Vec::new(),
            join: false,
            advertise: String::new(),
            rack: String::new(),
            replicas: u32::from(REPLICAS_DEFAULT),
            detect_ms: DETECT_MS_DEFAULT,
            balance_leaders: true,
        }
    }
}

impl ClusterSettings {
    /// `id` as a number, if it is set.
    ///
    /// # Errors
    /// If it is not 32 hexadecimal digits.
    pub fn cluster_id(&self) -> Result<Option<u128>, ConfigError> {
        if self.id.is_empty() {
            return Ok(None);
        }
        match u128::from_str_radix(&self.id, 16) {
            Ok(id) if self.id.len() == 32 && !self.id.starts_with('+') => Ok(Some(id)),
            _ => fail(format!(
                "`cluster.id` is \"{}\": write the 32 hexadecimal digits that the broker logs at start.",
                self.id
            )),
        }
    }

    /// `brokers`, read.
    ///
    /// # Errors
    /// If one is not `number@host:port`, or a number or address is there twice.
    pub fn named_brokers(&self) -> Result<Vec<NamedBroker>, ConfigError> {
        let mut named: Vec<NamedBroker> = Vec::new();
        for text in &self.brokers {
            let Some(broker) = read_broker(text) else {
                return fail(format!(
                    "`cluster.brokers` has \"{text}\": write each as number@host:port, for example \
                     \"1@10.0.0.1:7420\"."
                ));
            };
            for other in &named {
                if other.number == broker.number {
                    return fail(format!(
                        "`cluster.brokers` has the number {} twice: give each broker its own.",
                        broker.number
                    ));
                }
                if other.address == broker.address {
                    return fail(format!(
                        "`cluster.brokers` has {} twice: give each broker its own address.",
                        broker.address
                    ));
                }
            }
            named.push(broker);
        }
        named.sort_by_key(|broker| broker.number);
        Ok(named)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.cluster_id()?;
        let named = self.named_brokers()?;
        if named.len() > BROKERS_MAX {
            return fail(format!(
                "`cluster.brokers` lists {}: {BROKERS_MAX} is the most.",
                named.len()
            ));
        }
        match self.broker {
            0 if !named.is_empty() => {
                return fail(
                    "`cluster.brokers` is set but `cluster.broker` is 0: say which of them this \
                     broker is.",
                );
            }
            0 => {}
            number if named.is_empty() => {
                return fail(format!(
                    "`cluster.broker` is {number} but `cluster.brokers` is empty: list the brokers \
                     of the cluster, this one among them."
                ));
            }
            number if named.iter().all(|broker| broker.number != number) => {
                return fail(format!(
                    "`cluster.broker` is {number}, which `cluster.brokers` does not list: add \
                     \"{number}@host:port\"."
                ));
            }
            _ if self.id.is_empty() => {
                return fail(
                    "`cluster.id` is empty but `cluster.brokers` is set: give all brokers of the \
                     cluster the same 32 hexadecimal digits, for example from `openssl rand -hex 16`.",
                );
            }
            number if self.join && named.len() == 1 => {
                return fail(format!(
                    "`cluster.join` is set but `cluster.brokers` lists broker {number} only: list some \
                     that are there already, too."
                ));
            }
            _ => {}
        }
        if self.join && self.broker == 0 {
            return fail(
                "`cluster.join` is set but `cluster.broker` is 0: give this broker a number that no \
                 other one has or had, and list it and some that are there in `cluster.brokers`.",
            );
        }
        if !self.advertise.is_empty() && !is_host_and_port(&self.advertise) {
            return fail(format!(
                "`cluster.advertise` is \"{}\": write host:port, as others reach this broker.",
                self.advertise
            ));
        }
        if self.rack.len() > RACK_BYTES_MAX {
            return fail(format!("`cluster.rack` is longer than {RACK_BYTES_MAX} bytes."));
        }
        let most = u32::from(REPLICAS_MAX);
        if !(1..=most).contains(&self.replicas) || self.replicas.is_multiple_of(2) {
            return fail(format!(
                "`cluster.replicas` is {}: choose an odd number from 1 to {most}.",
                self.replicas
            ));
        }
        if !(100..=60_000).contains(&self.detect_ms) {
            return fail(format!(
                "`cluster.detect_ms` is {}: choose a value from 100 to 60000.",
                self.detect_ms
            ));
        }
        Ok(())
    }
}

fn fail<T>(sentence: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(sentence.into()))
}

fn read_broker(text: &str) -> Option<NamedBroker> {
    let (number, address) = text.split_once('@')?;
    let number = number.parse().ok().filter(|number| *number > 0)?;
    is_host_and_port(address).then(|| NamedBroker { number, address: address.to_owned() })
}

/// Whether others could connect there. Asks no name server.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_bare = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
    let is_host = !host.is_empty() && is_bare && !host.contains(char::is_whitespace);
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const ID: &str = "id = \"0123456789abcdef0123456789abcdef\"";

    #[test]
    fn three_brokers_are_read_in_the_order_of_their_numbers() {
        let text = format!(
            "[cluster]\n{ID}\nbroker = 2\n\
             brokers = [\"3@c:7\", \"1@10.0.0.1:7420\", \"2@[::1]:7420\"]"
        );
        let config = Config::parse(&text).expect("good");
        let named = config.cluster.named_brokers().expect("good");
        let read: Vec<_> =
            named.iter().map(|broker| (broker.number, broker.address.as_str())).collect();
        assert_eq!(read, [(1, "10.0.0.1:7420"), (2, "[::1]:7420"), (3, "c:7")]);
    }

    #[test]
    fn one_that_joins_lists_itself_and_some_that_are_there() {
        let text = format!(
            "[cluster]\n{ID}\nbroker = 9\njoin = true\nbrokers = [\"9@d:7420\", \"2@b:7420\"]"
        );
        assert!(Config::parse(&text).expect("good").cluster.join);
    }

    #[test]
    fn what_is_no_cluster_is_refused_with_the_fix() {
        let two = "brokers = [\"1@a:1\", \"2@b:1\"]";
        for (text, part) in [
            ("id = \"12\"".to_owned(), "`cluster.id` is \"12\": write the 32"),
            (format!("{ID}\n{two}"), "`cluster.broker` is 0: say which"),
            (format!("{ID}\nbroker = 1"), "`cluster.brokers` is empty: list"),
            (format!("{ID}\nbroker = 3\n{two}"), "add \"3@host:port\""),
            (format!("broker = 1\n{two}"), "`cluster.id` is empty"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"a:1\"]"), "as number@host:port"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"0@a:1\"]"), "as number@host:port"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"1@a\"]"), "as number@host:port"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"1@a:0\"]"), "as number@host:port"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"1@::1:7\"]"), "as number@host:port"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"1@a:1\", \"1@b:1\"]"), "the number 1 twice"),
            (format!("{ID}\nbroker = 1\nbrokers = [\"1@a:1\", \"2@a:1\"]"), "a:1 twice"),
            (format!("{ID}\njoin = true"), "`cluster.join` is set but `cluster.broker` is 0"),
            (format!("{ID}\njoin = true\nbroker = 4\nbrokers = [\"4@a:1\"]"), "broker 4 only"),
            ("advertise = \"a\"".to_owned(), "`cluster.advertise` is \"a\": write host:port"),
            ("replicas = 2".to_owned(), "choose an odd number from 1 to 7"),
            ("replicas = 0".to_owned(), "choose an odd number"),
            ("detect_ms = 5".to_owned(), "`cluster.detect_ms` is 5: choose"),
        ] {
            let error = Config::parse(&format!("[cluster]\n{text}")).expect_err(&text);
            assert!(error.0.contains(part), "{text}: {error}");
        }
    }
}
