//! What is known of one lane: who has replicas of it, and who leads.

use std::sync::Arc;

use corelog_protocol::ids::{BrokerId, Epoch, LaneId};

use super::codec::{BadBytes, Reader, Writer};
use super::command::read_flag;
use crate::disk::DirectoryId;
use crate::replica::Position;

/// Replicas of a lane.
pub const REPLICAS_MAX: usize = 7;

/// Where a replica is. It never moves to another disk of its broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneReplica {
    pub broker: BrokerId,
    pub directory: DirectoryId,
}

/// Who was named to lead, and the end of its log for which it was chosen: it begins only if it can
/// read that far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneLeader {
    pub broker: BrokerId,
    pub position: Position,
}

/// A hand-over under way: the leader takes no batches, and the other one leads next if it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneMoving {
    pub to: BrokerId,
    /// No two moves have the same: what is said of an earlier one means nothing for this.
    pub number: u64,
    /// If it comes about, its target is the preferred leader from then on.
    pub is_to_stay: bool,
}

/// A lane. Lane 0 (the metadata) is not recorded.
///
/// With one replica it is led by that broker in epoch 0 for ever, which numbers its epochs itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneRecord {
    pub id: LaneId,
    /// 1 to `REPLICAS_MAX`, each on another broker. The first is the preferred leader.
    pub replicas: Arc<[LaneReplica]>,
    /// Only grows.
    pub epoch: Epoch,
    /// None while the replicas are fenced at `epoch`.
    pub leader: Option<LaneLeader>,
    /// The set before the last change. Its quorum counts as well until a leader of the new one has
    /// committed something.
    pub before: Option<Arc<[LaneReplica]>>,
    /// Until a leader of a later epoch is named.
    pub moving: Option<LaneMoving>,
    /// The replicas that it gets with this move, which is from its leader to itself.
    pub next: Option<Arc<[LaneReplica]>>,
}

impl LaneRecord {
    /// A lane as it begins: one replica leads at once, several have to be asked first.
    pub fn new(id: LaneId, replicas: Arc<[LaneReplica]>) -> Self {
        let (epoch, leader) = match replicas[..] {
            [only] => {
                let leader = LaneLeader { broker: only.broker, position: Position::default() };
                (Epoch(0), Some(leader))
            }
            _ => (Epoch(1), None),
        };
        Self { id, replicas, epoch, leader, before: None, moving: None, next: None }
    }

    /// Its entries are sent to other brokers, and metadata says who leads.
    pub fn is_replicated(&self) -> bool {
        self.replicas.len() > 1
    }

    /// The replica on this broker, of the present set.
    pub fn replica(&self, broker: BrokerId) -> Option<&LaneReplica> {
        self.replicas.iter().find(|replica| replica.broker == broker)
    }

    /// The broker that leads, if there is one.
    pub fn leader_id(&self) -> Option<BrokerId> {
        self.leader.map(|leader| leader.broker)
    }

    /// The preferred leader.
    pub fn preferred(&self) -> BrokerId {
        self.replicas[0].broker
    }

    /// Who shall lead next, if it can: the target of a move, or the preferred leader.
    pub fn favored(&self) -> BrokerId {
        self.moving.map_or(self.preferred(), |moving| moving.to)
    }

    /// This replica is the preferred leader from now on. Nothing else about the set changes by that.
    pub(super) fn prefer(&mut self, broker: BrokerId) {
        let mut replicas = self.replicas.to_vec();
        // Sorting is stable: the others keep their order.
        replicas.sort_by_key(|replica| replica.broker != broker);
        self.replicas = replicas.into();
    }

    /// The replica on this broker whose word counts or will count.
    pub fn member(&self, broker: BrokerId) -> Option<&LaneReplica> {
        self.members().find(|replica| replica.broker == broker)
    }

    /// Everybody whose word on this lane counts or will count: the present set, then the one before.
    pub fn members(&self) -> impl Iterator<Item = &LaneReplica> {
        self.replicas.iter().chain(self.before.iter().flat_map(|before| before.iter()))
    }

    /// What could have been written by [`super::State::apply`], as far as this record alone tells.
    pub(super) fn is_possible(&self) -> bool {
        let is_several = |set: &[LaneReplica]| set.len() > 1 && is_set(set);
        let are_sets = is_set(&self.replicas) && self.before.as_deref().is_none_or(is_several);
        let leads_one_of_them = self.leader_id().is_none_or(|id| self.replica(id).is_some());
        let is_one = *self == Self::new(self.id, Arc::clone(&self.replicas));
        let is_epoch = self.epoch > Epoch(0) && self.is_replicated();
        // To its leader only with other replicas, among which that is.
        let is_move = self.moving.is_none_or(|moving| {
            let is_to_leader = self.leader_id() == Some(moving.to);
            self.replica(moving.to).is_some() && is_to_leader == self.next.is_some()
        });
        let is_change = self.next.as_deref().is_none_or(|next| {
            let stays = |moving: LaneMoving| next.iter().any(|it| it.broker == moving.to);
            is_several(next) && self.before.is_none() && self.moving.is_some_and(stays)
        });
        are_sets && leads_one_of_them && is_move && is_change && (is_one || is_epoch)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u64(self.epoch.0);
        let leader = self
            .leader
            .unwrap_or(LaneLeader { broker: BrokerId(0), position: Position::default() });
        writer.u32(leader.broker.0);
        leader.position.write(writer);
        write_replicas(writer, &self.replicas);
        write_replicas(writer, self.before.as_deref().unwrap_or(&[]));
        let nobody = LaneMoving { to: BrokerId(0), number: 0, is_to_stay: false };
        let moving = self.moving.unwrap_or(nobody);
        writer.u32(moving.to.0);
        writer.u64(moving.number);
        writer.u8(u8::from(moving.is_to_stay));
        write_replicas(writer, self.next.as_deref().unwrap_or(&[]));
    }

    pub(super) fn read(id: LaneId, reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let epoch = Epoch(reader.u64()?);
        let leader =
            LaneLeader { broker: BrokerId(reader.u32()?), position: Position::read(reader)? };
        let replicas = read_replicas(reader)?.into();
        let before = read_replicas(reader)?;
        let before = (!before.is_empty()).then(|| before.into());
        let is_named = leader.broker.0 > 0;
        if !is_named && leader.position != Position::default() {
            return Err(BadBytes);
        }
        let moving = LaneMoving {
            to: BrokerId(reader.u32()?),
            number: reader.u64()?,
            is_to_stay: read_flag(reader)?,
        };
        if moving.to.0 == 0 && (moving.number > 0 || moving.is_to_stay) {
            return Err(BadBytes);
        }
        let moving = (moving.to.0 > 0).then_some(moving);
        let next = read_replicas(reader)?;
        let next = (!next.is_empty()).then(|| next.into());
        let leader = is_named.then_some(leader);
        let record = Self { id, replicas, epoch, leader, before, moving, next };
        if record.is_possible() { Ok(record) } else { Err(BadBytes) }
    }
}

/// Neither empty nor too many, all of them on brokers, no broker twice.
pub(super) fn is_set(replicas: &[LaneReplica]) -> bool {
    let is_first = |at: usize, replica: &LaneReplica| {
        replica.broker.0 > 0
            && replicas[..at].iter().all(|earlier| earlier.broker != replica.broker)
    };
    (1..=REPLICAS_MAX).contains(&replicas.len())
        && replicas.iter().enumerate().all(|(at, replica)| is_first(at, replica))
}

/// Their number as u8, then broker u32 and directory u16 of each.
pub(super) fn write_replicas(writer: &mut Writer, replicas: &[LaneReplica]) {
    writer.u8(u8::try_from(replicas.len()).expect("a set is small"));
    for replica in replicas {
        writer.u32(replica.broker.0);
        writer.u16(replica.directory.0);
    }
}

/// May be empty or no set: who asks looks at that.
pub(super) fn read_replicas(reader: &mut Reader<'_>) -> Result<Vec<LaneReplica>, BadBytes> {
    let count = reader.u8()?;
    let mut read = || {
        let broker = BrokerId(reader.u32()?);
        Ok(LaneReplica { broker, directory: DirectoryId(reader.u16()?) })
    };
    (0..count).map(|_| read()).collect()
}
