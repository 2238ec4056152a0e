//! The brokers of the configuration, with the addresses that their names have now. Asks the name server once, before
//! any executor runs: a broker that moves tells its new address itself.

use std::net::{SocketAddr, ToSocketAddrs};

use corelog_protocol::ids::BrokerId;

use crate::config::{ClusterSettings, ConfigError};

/// Where everybody is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Of `[cluster]`, by number. Empty: the broker is alone.
    pub brokers: Vec<(BrokerId, SocketAddr)>,
    /// Where this one is reached.
    pub advertise: SocketAddr,
}

/// `bound` is where this broker listens.
///
/// # Errors
/// If the configuration is wrong, or a name has no address.
pub fn resolve(settings: &ClusterSettings, bound: SocketAddr) -> Result<Places, ConfigError> {
    let mut brokers = Vec::new();
    for named in settings.named_brokers()? {
        let address = address_of("cluster.brokers", &named.address, bound)?;
        brokers.push((BrokerId(named.number), address));
    }
    let own = brokers.iter().find(|(id, _)| id.0 == settings.broker).map(|(_, address)| *address);
    let advertise = match settings.advertise.as_str() {
        "" => own.unwrap_or(bound),
        text => address_of("cluster.advertise", text, bound)?,
    };
    Ok(Places { brokers, advertise })
}

fn address_of(key: &str, text: &str, bound: SocketAddr) -> Result<SocketAddr, ConfigError> {
    let unknown = |why: String| {
        ConfigError(format!(
            "`{key}` names {text}, whose address cannot be found ({why}): check the name, or write \
             the address itself."
        ))
    };
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| unknown(error.to_string()))?.collect();
    // A name may have both kinds: the one on which this broker listens is the likely one.
    let alike = found.iter().find(|address| address.is_ipv4() == bound.is_ipv4());
    let first = alike.or(found.first());
    first.copied().ok_or_else(|| unknown("it has none".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_its_address_and_one_without_is_refused() {
        let bound: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        let alone = resolve(&ClusterSettings::default(), bound).expect("alone");
        assert_eq!(alone, Places { brokers: Vec::new(), advertise: bound });

        let mut settings = ClusterSettings { broker: 2, ..ClusterSettings::default() };
        settings.brokers = vec!["1@localhost:7420".into(), "2@127.0.0.1:7421".into()];
        let places = resolve(&settings, bound).expect("known names");
        assert_eq!(places.brokers[0], (BrokerId(1), "127.0.0.1:7420".parse().expect("an address")));
        assert_eq!(places.advertise, places.brokers[1].1);

        settings.brokers[0] = "1@no-such-host.invalid:7420".into();
        let error = resolve(&settings, bound).expect_err("no such host");
        assert!(error.0.contains("`cluster.brokers` names no-such-host.invalid:7420"), "{error}");
    }
}
