//! The brokers of a cluster as they were told last, and which of them is asked about topics: the guide.
//!
//! A client begins with addresses only. Whoever answers there tells who else is there, and from then on
//! each broker has doors of its own. A guide that is gone, silent, or behind the times (it has named twice in a row who
//! refuses to lead) gives way to the next in the ring: all brokers by id, then whoever answers at the addresses of the settings.
//! A broker that is alone tells no list, and is asked at those addresses for ever.

use super::door::{Ask, Door, Link};
use super::time::{MILLIS, Now};
use super::{Effect, Effects, Engine, METADATA_SHARD};
use crate::{Error, Refusal};
use corelog_protocol::ErrorCode;
use corelog_protocol::ids::{BrokerId, ClusterId, ShardId};
use corelog_protocol::message::{BrokerPlace, Brokers, TopicInfo};

/// "Whoever answers at the addresses of the settings."
pub(super) const ANYBODY: BrokerId = BrokerId(0);

/// First and longest wait before a redirected request is tried again.
const REDIRECT_NANOS_MIN: u64 = 20 * MILLIS;
const REDIRECT_NANOS_MAX: u64 = 1_000 * MILLIS;

#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Empty: nobody has told of a cluster.
    brokers: Brokers,
    /// Which cluster told the list: no other one is believed any more.
    pub id: Option<ClusterId>,
    /// Who is asked.
    pub guide: BrokerId,
}

impl Cluster {
    /// More than one broker may be there.
    pub(super) fn is_known(&self) -> bool {
        !self.brokers.places.is_empty()
    }

    pub(super) fn get(&self, broker: BrokerId) -> Option<&BrokerPlace> {
        self.brokers.get(broker)
    }

    /// Somebody else can be asked.
    pub(super) fn has_others(&self, broker: BrokerId) -> bool {
        self.brokers.places.iter().any(|place| place.id != broker)
    }

    fn ring(&self) -> Vec<BrokerId> {
        self.brokers.places.iter().map(|place| place.id).chain([ANYBODY]).collect()
    }
}

impl<T> Engine<T> {
    /// The door through which topics are asked about.
    pub(super) fn door_of_metadata(&mut self) -> usize {
        self.door_to(self.cluster.guide, METADATA_SHARD)
    }

    /// Takes note of the brokers that an answer through this door told. False: the answer is not one of
    /// the cluster that was told before, or it is one of a time before there was a list.
    pub(super) fn learn_brokers(&mut self, door: usize, info: &TopicInfo) -> bool {
        if info.brokers.places.is_empty() {
            return !self.cluster.is_known();
        }
        if self.cluster.id.is_none() {
            self.cluster.id = self.doors[door].link.as_ref().and_then(|link| link.cluster);
        }
        if self.cluster.brokers != info.brokers {
            tracing::debug!(brokers = info.brokers.places.len(), "the brokers of the cluster");
            self.cluster.brokers = info.brokers.clone();
        }
        let me = info.brokers.me;
        let shard = self.doors[door].shard;
        let has_door = self.doors.iter().any(|door| door.broker == me && door.shard == shard);
        if self.doors[door].broker == ANYBODY && !has_door && self.cluster.get(me).is_some() {
            // The connection stands: from here on it is one to this broker.
            self.doors[door].broker = me;
            if self.cluster.guide == ANYBODY {
                self.cluster.guide = me;
            }
        }
        let cluster = &self.cluster;
        self.doors.iter_mut().for_each(|door| door.find(cluster));
        true
    }

    /// Asks another broker from here on: the next in the ring that is not silent and may be tried now, else the one
    /// that may be tried first. What waits to be asked moves along.
    pub(super) fn turn_guide(&mut self, now: Now) {
        if !self.cluster.is_known() {
            return;
        }
        let ring = self.cluster.ring();
        let from = ring.iter().position(|&id| id == self.cluster.guide).unwrap_or(0);
        let rank = |id: BrokerId| {
            let doors = || self.doors.iter().filter(|door| door.broker == id);
            let is_silent = doors().filter_map(|door| door.link.as_ref()).any(Link::is_doubted);
            let door = doors().find(|door| door.is_for(METADATA_SHARD));
            (is_silent, door.map_or(now.monotonic, |door| door.not_before.max(now.monotonic)))
        };
        let others = (1..ring.len()).map(|step| ring[(from + step) % ring.len()]);
        if let Some(next) = others.min_by_key(|&id| rank(id)) {
            let old = self.door_of_metadata();
            self.cluster.guide = next;
            self.move_asks(old);
        }
    }

    /// What waits in a door and could be asked of any broker is asked of the guide.
    pub(super) fn move_asks(&mut self, door: usize) {
        let guide = self.door_of_metadata();
        if guide == door {
            return;
        }
        let (any, own): (Vec<Ask>, Vec<Ask>) =
            std::mem::take(&mut self.doors[door].asks).into_iter().partition(|ask| match ask {
                Ask::Describe(_) => true,
                Ask::Locate(..) => false,
                Ask::Admin(request) => self.is_for_any_broker(*request),
            });
        self.doors[door].asks.extend(own);
        self.doors[guide].asks.extend(any);
    }

    /// The broker that was found at an address knows no others and decides nothing yet: it has not joined, or just
    /// started. So the next of the addresses that were given is tried, if there is another one.
    pub(super) fn turn_address(&mut self, now: Now, refusal: &Refusal, effects: &mut Effects<T>) {
        let is_early = refusal.code == ErrorCode::Recovering && !self.cluster.is_known();
        if !is_early || self.config.addresses.len() < 2 {
            return;
        }
        let door = self.door_of_metadata();
        if let Some(link) = &self.doors[door].link {
            effects.push(Effect::Close { link: link.id });
            self.address = self.address.wrapping_add(1);
            self.lose(now, door, effects);
        }
    }

    /// Why nobody could be asked: what one who was reached said instead of greeting, if any did.
    pub(super) fn unreachable(&self) -> Error {
        let refusal = self.doors.iter().find_map(|door| door.turned_away.clone());
        refusal.map_or(Error::Unreachable, Error::Refused)
    }

    /// How long to wait before something is tried again that was sent elsewhere so many times in a row, ns.
    pub(super) fn redirect_nanos(&mut self, times: u32) -> u64 {
        let wait = (REDIRECT_NANOS_MIN << times.min(16)).min(REDIRECT_NANOS_MAX);
        wait - self.random.below(wait / 2 + 1)
    }
}

impl Door {
    fn is_for(&self, shard: ShardId) -> bool {
        self.shard == shard || self.shard == ShardId::ANY
    }

    /// Takes over where its broker is now. One that is listed no more keeps its last address.
    pub(super) fn find(&mut self, cluster: &Cluster) {
        if let Some(place) = cluster.get(self.broker) {
            self.address = Some(place.address);
            self.incarnation = Some(place.incarnation);
        }
    }
}
