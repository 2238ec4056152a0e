//! The whole world at one moment: the replicas, the metadata authority, what is under way between them, and what
//! clients were told.
//!
//! Messages are facts, not packets: what was sent stays known and can be taken at any later time, again and in any order, or never.
//! So delay, reordering, duplication and loss need no actions of their own. Facts that nobody can use any more are
//! forgotten (`tidy`), so that equal futures are one state. Replicas are told apart by their place only: states that
//! differ by a renaming hash alike, which is the symmetry reduction.

use std::hash::{Hash, Hasher};

use crate::config::{Config, EPOCH_MAX};
use crate::log::{Entry, LSN_MAX, Log, Position};

/// What a replica does in an epoch. Lost in a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Nothing: it waits for a leader to match with, or to be named.
    #[default]
    Waiting,
    /// It has matched this epoch's leader, and takes entries.
    Following(u8),
    /// It leads this epoch; `life` is 0 unless an error is planted.
    Leading { epoch: u8, life: u8 },
}

/// The answer to a fence. Tells what is durable, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Answer {
    /// The log is durable and whole through this position.
    pub has: Position,
    /// Nothing that this replica ever acknowledged lies above this position. Above `has` only if something is bad.
    pub perhaps: Position,
}

/// A replica's disk before a truncation: the log, and the accepted epoch, which are recorded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Before {
    /// The log with what was truncated.
    pub log: Log,
    /// The accepted epoch.
    pub accepted: u8,
}

/// One replica, with what metadata and messages know of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Its copy of the lane.
    pub log: Log,
    /// What a crash would bring back, while a truncation is not durable.
    pub undone: Option<Before>,
    /// The greatest epoch promised, as memory has it.
    pub promised: u8,
    /// The same as the disk has it: equal, unless an error is planted.
    pub promised_durably: u8,
    /// The greatest epoch in which it took entries or led; durable before the first is acknowledged, or sent.
    pub accepted: u8,
    /// What it does.
    pub role: Role,
    /// News under way to it: metadata named it leader of this epoch, for this position.
    pub named: Option<(u8, Position)>,
    /// Acknowledgments that it sent in each epoch whose leader may still count them: the greatest LSN.
    pub acked: [u8; EPOCH_MAX + 1],
    /// The answers that it gave to the fence of the current epoch; each may still be under way.
    pub answers: Vec<Answer>,
    /// The epochs in whose set it is, a bit each; bit 0 says that it was in a set once.
    pub member: u8,
    /// Whether it is in the set that the current one replaces.
    pub member_before: bool,
    /// Whether its disk was lost: it must not be heard under this id again.
    pub wiped: bool,
}

impl Replica {
    /// Whether it is in the replica set of `epoch`.
    pub fn is_member(&self, epoch: u8) -> bool {
        self.member & (1 << epoch) != 0
    }
}

/// What is committed at an LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// What clients see.
    pub entry: Entry,
    /// The least epoch whose leader committed it.
    pub epoch: u8,
}

/// A property that a step broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// I1, I3: an LSN was committed with another entry than before.
    CommittedChanged,
    /// I1, I8: the log of a later leader does not have what was committed.
    CommittedLost,
    /// I7: an epoch had a second leader.
    SecondLeader,
    /// I7: an acknowledgment did not mean equal to the leader's log.
    AckUnequal,
    /// I8: a truncation took what was committed.
    CommittedTruncated,
}

/// The world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The replicas, by id.
    pub replicas: Vec<Replica>,
    /// Metadata: the current epoch of the lane.
    pub epoch: u8,
    /// Metadata: whether that epoch has a leader.
    pub has_leader: bool,
    /// The log of each epoch's leader, all of which was sent to everyone.
    pub leader_logs: [Log; EPOCH_MAX + 1],
    /// The history that clients see, by LSN.
    pub committed: [Option<Committed>; LSN_MAX],
    /// What is left of the bounds: crashes, rots, wipes, changes.
    pub crashes: u8,
    /// Entries that may still rot.
    pub rots: u8,
    /// Disks that may still be lost.
    pub wipes: u8,
    /// Changes of the set that may still be asked for.
    pub changes: u8,
    /// The first property that a step broke; nothing happens after it.
    pub broken: Option<Broken>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut order: [usize; 4] = [0, 1, 2, 3];
        let order = &mut order[..self.replicas.len()];
        order.sort_unstable_by(|&left, &right| self.replicas[left].cmp(&self.replicas[right]));
        for &index in order.iter() {
            self.replicas[index].hash(state);
        }
        let left = [
            self.epoch,
            u8::from(self.has_leader),
            self.crashes,
            self.rots,
            self.wipes,
            self.changes,
        ];
        state.write(&left);
        self.leader_logs.hash(state);
        self.committed.hash(state);
        self.broken.hash(state);
    }
}

impl State {
    /// Epoch 1 has begun, replica 0 has been named its leader, all logs are empty.
    pub fn first(config: &Config) -> State {
        let mut replicas = vec![Replica::default(); usize::from(config.replicas + config.spares)];
        for replica in &mut replicas[..usize::from(config.replicas)] {
            replica.promised = 1;
            replica.promised_durably = 1;
            replica.member = 1 << 1 | 1;
        }
        replicas[0].named = Some((1, Position::default()));
        State {
            replicas,
            epoch: 1,
            has_leader: true,
            leader_logs: Default::default(),
            committed: Default::default(),
            crashes: config.crashes,
            rots: config.rots,
            wipes: config.wipes,
            changes: config.changes,
            broken: None,
        }
    }

    /// The replica that leads `epoch` now.
    pub fn leader_of(&self, epoch: u8) -> Option<usize> {
        self.replicas.iter().position(
            |replica| matches!(replica.role, Role::Leading { epoch: e, .. } if e == epoch),
        )
    }

    /// LSN through which clients see records.
    pub fn committed_end(&self) -> u8 {
        self.committed.iter().take_while(|committed| committed.is_some()).count() as u8
    }

    /// Notes what a step broke. The first finding stays.
    pub(crate) fn break_with(&mut self, broken: Broken) {
        self.broken.get_or_insert(broken);
    }

    /// Forgets facts that can no longer make a difference.
    pub(crate) fn tidy(&mut self) {
        for epoch in 1..=self.epoch {
            if self.leader_of(epoch).is_none() {
                for replica in &mut self.replicas {
                    replica.acked[usize::from(epoch)] = 0;
                }
            }
            let named = |replica: &Replica| replica.named.is_some_and(|(e, _)| e == epoch);
            if epoch < self.epoch
                && self.leader_of(epoch).is_none()
                && !self.replicas.iter().any(named)
            {
                for replica in &mut self.replicas {
                    replica.member &= !(1 << epoch);
                }
            }
            let joinable = self.replicas.iter().any(|replica| {
                let takes_part = match replica.role {
                    Role::Waiting => false,
                    Role::Following(e) | Role::Leading { epoch: e, .. } => e == epoch,
                };
                !replica.wiped && (replica.promised <= epoch || takes_part)
            });
            if !joinable {
                self.leader_logs[usize::from(epoch)] = Log::default();
            }
        }
    }
}
