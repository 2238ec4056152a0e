//! What a shard is told about itself at its start. Nothing here changes while it lives.

use std::net::{Ipv4Addr, SocketAddr};

use corelog_protocol::ids::{BrokerId, ClusterId, Incarnation, ShardId};

use crate::limits;
use crate::metadata::balance::BalanceConfig;
use crate::time::Nanos;

#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub shard: ShardId,
    /// How many shards this broker runs, 1 or more. May differ from boot to boot.
    pub shards: u16,
    pub cluster: ClusterId,
    pub incarnation: Incarnation,
    /// How many data directories the broker has, 1 or more. The metadata lane is in the first.
    pub directories: u16,
    /// Lanes led per shard, recorded in the metadata at the first boot and ignored later.
    pub lanes_per_shard: u16,
    /// Full-grown size of a segment, a multiple of `BLOCK_BYTES`.
    pub segment_bytes: u64,
    /// With n commits of a lane in flight, another starts only when n times this much is gathered.
    pub gather_bytes: usize,
    /// How fast the shard reads its sealed segments to compare them with their checksums, bytes; 0: never.
    pub scrub_bytes_per_second: u64,
    /// Everything that this shard may hold for clients and commits, bytes.
    pub memory_bytes: usize,
    /// The frame cap after hello: control table and payload together, bytes.
    pub frame_bytes_max: usize,
    /// Connections of this shard.
    pub connections_max: u32,
    /// Connections of this shard from one address.
    pub connections_per_address_max: u32,
    /// The broker's number in its cluster. 1 if it is alone.
    pub broker: BrokerId,
    /// Drawn at random at each start of the broker, the same for all its shards.
    pub life: u64,
    /// The brokers that begin the cluster, or some that are there when this one joins; this one among them, by number.
    /// `None`: the name of its host has no address yet, see [`super::event::Event::Located`]. Empty: the broker is alone.
    pub cluster_brokers: Vec<(BrokerId, Option<SocketAddr>)>,
    /// The cluster is there already: without records of the metadata this broker joins it, and begins nothing.
    pub join: bool,
    /// Where other brokers and clients connect.
    pub advertise: SocketAddr,
    /// Replicas of one lane are spread over racks. Empty: it does not matter.
    pub rack: Box<str>,
    /// Replicas of a lane, an odd number, if the cluster has so many brokers.
    pub replicas_default: u8,
    /// A broker that was not heard for so long leads no longer.
    pub detect: Nanos,
    /// How the leaders of lanes are spread by load while this broker leads the metadata. None: not at all.
    pub balance: Option<BalanceConfig>,
    /// What is made slower on purpose.
    #[cfg(feature = "delays")]
    pub delays: super::delays::Delays,
}

impl ShardConfig {
    /// The defaults.
    pub fn new(shard: ShardId, shards: u16, cluster: ClusterId, incarnation: Incarnation) -> Self {
        Self {
            shard,
            shards,
            cluster,
            incarnation,
            directories: 1,
            lanes_per_shard: limits::LANES_PER_SHARD_DEFAULT,
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT as u64,
            gather_bytes: limits::GATHER_BYTES_DEFAULT,
            scrub_bytes_per_second: 0,
            memory_bytes: limits::SHARD_MEMORY_BYTES_DEFAULT,
            frame_bytes_max: limits::FRAME_BYTES_DEFAULT,
            connections_max: limits::CONNECTIONS_DEFAULT,
            connections_per_address_max: limits::CONNECTIONS_PER_ADDRESS_DEFAULT,
            broker: BrokerId(1),
            life: 1,
            cluster_brokers: Vec::new(),
            join: false,
            advertise: SocketAddr::from((Ipv4Addr::LOCALHOST, limits::PORT_DEFAULT)),
            rack: "".into(),
            replicas_default: limits::REPLICAS_DEFAULT,
            detect: Nanos::from_millis(limits::DETECT_MS_DEFAULT),
            balance: None,
            #[cfg(feature = "delays")]
            delays: super::delays::Delays::default(),
        }
    }

    /// Whether there are other brokers, or may be.
    pub fn is_clustered(&self) -> bool {
        !self.cluster_brokers.is_empty()
    }

    /// The first thing that is wrong, as a sentence for whoever wrote the configuration.
    pub fn check(&self) -> Result<(), String> {
        let fail = |text: String| Err(text);
        if self.shards == 0 || self.shards > limits::SHARDS_MAX || self.shard.0 >= self.shards {
            return fail(format!(
                "shard {} of {}: there must be 1 to {} shards, numbered from 0",
                self.shard,
                self.shards,
                limits::SHARDS_MAX
            ));
        }
        if self.directories == 0 {
            return fail("at least one data directory is needed".into());
        }
        if self.lanes_per_shard == 0 || self.lanes_per_shard > limits::LANES_PER_SHARD_MAX {
            return fail(format!("lanes_per_shard must be 1 to {}", limits::LANES_PER_SHARD_MAX));
        }
        let (least, most) = (limits::SEGMENT_BYTES_MIN as u64, limits::SEGMENT_BYTES_MAX as u64);
        if !(least..=most).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(limits::BLOCK_BYTES as u64)
        {
            return fail(format!(
                "segment_bytes must be {least} to {most} and a multiple of {}",
                limits::BLOCK_BYTES
            ));
        }
        if !(limits::FRAME_BYTES_PRE_HELLO..=limits::FRAME_BYTES_HARD)
            .contains(&self.frame_bytes_max)
        {
            return fail(format!(
                "frame_bytes_max must be {} to {}",
                limits::FRAME_BYTES_PRE_HELLO,
                limits::FRAME_BYTES_HARD
            ));
        }
        if self.memory_bytes < limits::SHARD_MEMORY_BYTES_MIN {
            return fail(format!(
                "memory_bytes must be at least {}",
                limits::SHARD_MEMORY_BYTES_MIN
            ));
        }
        if self.broker == BrokerId(0) {
            return fail("a broker's number is 1 or more".into());
        }
        if self.is_clustered() && self.cluster_brokers.iter().all(|(id, _)| *id != self.broker) {
            return fail(format!("broker {} is not in the list of the cluster's", self.broker));
        }
        Ok(())
    }
}
