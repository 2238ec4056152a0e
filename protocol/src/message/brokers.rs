//! The brokers of a cluster, and which of them have copies: told with every topic, so that a client
//! that has reached one broker can reach all.

use std::net::SocketAddr;

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

use super::check;
use super::topics::PARTITIONS_PER_TOPIC_MAX;
use crate::generated::topics as wire;
use crate::ids::{BrokerId, Incarnation, LaneId};
use crate::malformed::MalformedError;

/// Brokers of a cluster.
pub const BROKERS_MAX: usize = 60;

/// What a broker says of its rack, bytes.
pub const RACK_BYTES_MAX: usize = 249;

/// Copies of all lanes of a topic, counted together: each of its partitions may be in a lane of its own.
pub const REPLICA_PLACES_MAX: usize = 5 * PARTITIONS_PER_TOPIC_MAX as usize;

/// The brokers of a cluster, as the one that answers knows them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Brokers {
    /// The one that answers. 0: it is alone.
    pub me: BrokerId,
    /// By id, each once; at most [`BROKERS_MAX`]. Empty: the one that answers is alone, and leads everything.
    pub places: Vec<BrokerPlace>,
}

impl Brokers {
    /// The place of a broker.
    #[must_use]
    pub fn get(&self, id: BrokerId) -> Option<&BrokerPlace> {
        let at = self.places.binary_search_by_key(&id, |place| place.id).ok()?;
        self.places.get(at)
    }
}

/// Where a broker can be reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerPlace {
    /// Its id: not 0.
    pub id: BrokerId,
    /// Where clients and other brokers connect.
    pub address: SocketAddr,
    /// How many shards it has. At least 1.
    pub shards: u16,
    /// Of its data: what to put into a Hello.
    pub incarnation: Incarnation,
    /// What fails together with it, or is near it: at most [`RACK_BYTES_MAX`] bytes. Empty: not told.
    pub rack: String,
}

/// A broker has a copy of a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaPlace {
    /// The lane.
    pub lane: LaneId,
    /// The broker.
    pub broker: BrokerId,
}

pub(super) fn brokers_from_wire(topic: &wire::TopicInfo<'_>) -> Result<Brokers, MalformedError> {
    let brokers = topic.brokers().unwrap_or_default();
    check(brokers.len() <= BROKERS_MAX, "topic info: too many brokers")?;
    let mut last = BrokerId(0);
    let places = brokers
        .iter()
        .map(|broker| {
            let id = BrokerId(broker.id());
            check(id > last, "topic info: brokers out of order")?;
            last = id;
            check(broker.shards() > 0, "topic info: a broker without shards")?;
            let address = broker.address().unwrap_or_default().parse();
            let rack = broker.rack().unwrap_or_default();
            check(rack.len() <= RACK_BYTES_MAX, "topic info: rack of a broker")?;
            Ok(BrokerPlace {
                id,
                address: address
                    .map_err(|_| MalformedError::new("topic info: address of a broker"))?,
                shards: broker.shards(),
                incarnation: Incarnation(broker.incarnation()),
                rack: rack.into(),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Brokers { me: BrokerId(topic.me()), places })
}

pub(super) fn replicas_from_wire(
    topic: &wire::TopicInfo<'_>,
) -> Result<Vec<ReplicaPlace>, MalformedError> {
    let replicas = topic.replica_places().unwrap_or_default();
    check(replicas.len() <= REPLICA_PLACES_MAX, "topic info: too many replicas")?;
    let place = |at: &wire::ReplicaPlace| ReplicaPlace {
        lane: LaneId(at.lane()),
        broker: BrokerId(at.broker()),
    };
    Ok(replicas.iter().map(place).collect())
}

/// None if there are none.
pub(super) fn brokers_to_wire<'b>(
    brokers: &Brokers,
    builder: &mut FlatBufferBuilder<'b>,
) -> Option<WIPOffset<Vector<'b, ForwardsUOffset<wire::BrokerPlace<'b>>>>> {
    if brokers.places.is_empty() {
        return None;
    }
    let places: Vec<_> = brokers
        .places
        .iter()
        .map(|broker| {
            let args = wire::BrokerPlaceArgs {
                id: broker.id.0,
                address: Some(builder.create_string(&broker.address.to_string())),
                shards: broker.shards,
                incarnation: broker.incarnation.0,
                rack: (!broker.rack.is_empty()).then(|| builder.create_string(&broker.rack)),
            };
            wire::BrokerPlace::create(builder, &args)
        })
        .collect();
    Some(builder.create_vector(&places))
}

/// None if there are none.
pub(super) fn replicas_to_wire<'b>(
    replicas: &[ReplicaPlace],
    builder: &mut FlatBufferBuilder<'b>,
) -> Option<WIPOffset<Vector<'b, wire::ReplicaPlace>>> {
    let places = replicas.iter().map(|at| wire::ReplicaPlace::new(at.lane.0, at.broker.0));
    (!replicas.is_empty()).then(|| builder.create_vector_from_iter(places))
}
