//! The brokers of the configuration, with the addresses that their names have now.
//!
//! A host that is down may have no name: so a name without an address keeps nobody from starting, unless it is the broker's
//! own. Names are asked for once before any executor runs and then every [`EVERY`], on a thread of their own, since a name
//! server may be slow: the address of a container changes with each start. Addresses that are written as such are not asked for.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use corelog_protocol::ids::BrokerId;

use crate::config::{ClusterSettings, ConfigError};

/// How often names are asked for again.
const EVERY: Duration = Duration::from_secs(5);

/// Where everybody is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// Of `[cluster]`, by number. `None`: the name has no address now. Empty: the broker is alone.
    pub brokers: Vec<(BrokerId, Option<SocketAddr>)>,
    /// Where this one is reached.
    pub advertise: SocketAddr,
}

/// `bound` is where this broker listens.
///
/// # Errors
/// If the configuration is wrong, or the name of this broker has no address.
pub fn resolve(settings: &ClusterSettings, bound: SocketAddr) -> Result<Places, ConfigError> {
    let mut brokers = Vec::new();
    let mut own = Ok(bound);
    for named in settings.named_brokers()? {
        let found = address_of(&named.address, bound);
        if named.number == settings.broker {
            own = found.clone().map_err(|why| unknown("cluster.brokers", &named.address, &why));
        } else if let Err(why) = &found {
            let name = named.address.as_str();
            tracing::warn!(name, why, "a broker's name has no address: it is asked for again");
        }
        brokers.push((BrokerId(named.number), found.ok()));
    }
    let advertise = match settings.advertise.as_str() {
        "" => own?,
        text => address_of(text, bound).map_err(|why| unknown("cluster.advertise", text, &why))?,
    };
    Ok(Places { brokers, advertise })
}

fn unknown(key: &str, text: &str, why: &str) -> ConfigError {
    ConfigError(format!(
        "`{key}` names {text}, whose address cannot be found ({why}): check the name, or write \
         the address itself."
    ))
}

fn address_of(text: &str, bound: SocketAddr) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> =
        text.to_socket_addrs().map_err(|error| error.to_string())?.collect();
    // A name may have both kinds: the one on which this broker listens is the likely one.
    let alike = found.iter().find(|address| address.is_ipv4() == bound.is_ipv4());
    let first = alike.or(found.first());
    first.copied().ok_or_else(|| "it has none".to_owned())
}

/// Names of other brokers, and what they led to when they were asked for last.
#[derive(Debug)]
struct Names(Vec<(BrokerId, String, Option<SocketAddr>)>);

impl Names {
    fn new(settings: &ClusterSettings, places: &Places) -> Self {
        let named = settings.named_brokers().unwrap_or_default().into_iter();
        let others = named.filter(|named| named.number != settings.broker);
        let names = others.filter(|named| named.address.parse::<SocketAddr>().is_err());
        let with_address = names.map(|named| {
            let id = BrokerId(named.number);
            let known = places.brokers.iter().find(|(other, _)| *other == id);
            (id, named.address, known.and_then(|(_, address)| *address))
        });
        Self(with_address.collect())
    }

    /// What has changed. A name that has no address any more keeps the one that it had.
    fn ask(
        &mut self,
        address_of: impl Fn(&str) -> Result<SocketAddr, String>,
    ) -> Vec<(BrokerId, SocketAddr)> {
        let mut changed = Vec::new();
        for (id, name, known) in &mut self.0 {
            if let Ok(address) = address_of(name)
                && *known != Some(address)
            {
                tracing::info!(broker = id.0, name = name.as_str(), %address, "a name leads elsewhere");
                *known = Some(address);
                changed.push((*id, address));
            }
        }
        changed
    }
}

/// The thread that asks for names again. Dropped, it ends as soon as the name server has answered; nobody waits for that.
#[derive(Debug)]
pub struct NameWatch {
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl NameWatch {
    /// Tells what has changed since `places`. None if there are no names to ask for.
    pub fn start(
        settings: &ClusterSettings,
        places: &Places,
        bound: SocketAddr,
        tell: impl Fn(Vec<(BrokerId, SocketAddr)>) + Send + 'static,
    ) -> std::io::Result<Option<Self>> {
        let mut names = Names::new(settings, places);
        if names.0.is_empty() {
            return Ok(None);
        }
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = Arc::clone(&stop);
        let watch = move || {
            while !waits_for_stop(&stopped) {
                let changed = names.ask(|name| address_of(name, bound));
                if !changed.is_empty() {
                    tell(changed);
                }
            }
        };
        std::thread::Builder::new().name("corelog-names".into()).spawn(watch)?;
        Ok(Some(Self { stop }))
    }
}

/// True if it came, false if it is time to ask again.
fn waits_for_stop((stopped, wake): &(Mutex<bool>, Condvar)) -> bool {
    let stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = wake.wait_timeout_while(stopped, EVERY, |stopped| !*stopped);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}

impl Drop for NameWatch {
    fn drop(&mut self) {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_becomes_its_address_and_the_own_one_must_have_one() {
        let bound: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        let alone = resolve(&ClusterSettings::default(), bound).expect("alone");
        assert_eq!(alone, Places { brokers: Vec::new(), advertise: bound });

        let mut settings = ClusterSettings { broker: 2, ..ClusterSettings::default() };
        settings.brokers = vec!["1@localhost:7420".into(), "2@127.0.0.1:7421".into()];
        let places = resolve(&settings, bound).expect("known names");
        assert_eq!(places.brokers[0], (BrokerId(1), "127.0.0.1:7420".parse().ok()));
        assert_eq!(Some(places.advertise), places.brokers[1].1);

        settings.brokers[0] = "1@no-such-host.invalid:7420".into();
        let places = resolve(&settings, bound).expect("another one may be down");
        assert_eq!(places.brokers[0], (BrokerId(1), None));
        settings.broker = 1;
        let error = resolve(&settings, bound).expect_err("no such host");
        assert!(error.0.contains("`cluster.brokers` names no-such-host.invalid:7420"), "{error}");
    }

    #[test]
    fn names_of_others_are_asked_for_again_and_what_changed_is_told() {
        let bound: SocketAddr = "127.0.0.1:9".parse().expect("an address");
        let mut settings = ClusterSettings { broker: 1, ..ClusterSettings::default() };
        settings.brokers =
            vec!["1@own:1".into(), "2@127.0.0.1:2".into(), "3@three:3".into(), "4@four:4".into()];
        let places = Places {
            brokers: vec![(BrokerId(3), "10.0.0.3:3".parse().ok()), (BrokerId(4), None)],
            advertise: bound,
        };
        let mut names = Names::new(&settings, &places);
        let table = |name: &str| match name {
            "three:3" => "10.0.0.33:3".parse().map_err(|_| String::new()),
            _ => Err("no address".to_owned()),
        };
        let three = (BrokerId(3), "10.0.0.33:3".parse().expect("an address"));
        assert_eq!(names.ask(table), [three]);
        assert_eq!(names.ask(table), []);
        let four = |_: &str| "10.0.0.4:4".parse().map_err(|_| String::new());
        let told: Vec<_> = names.ask(four).into_iter().map(|(id, _)| id.0).collect();
        assert_eq!(told, [3, 4], "neither itself nor what is written as an address");
        assert_eq!(names.ask(|_| Err("the server is down".to_owned())), [], "what is known stays");
    }
}
