//! Who takes part in the group: voters, learners, and the two sets of voters of a change of several at
//! once (joint consensus).

use crate::metadata::codec::{BadBytes, Reader, Writer};

/// Terms, indexes and ids above this are not believed: counted one by one, none gets there.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Members of one group, in all roles together: twice as many as a cluster has brokers, since a voter is in two sets while
/// the members change.
pub const MEMBERS_MAX: usize = 128;

/// One member of the group, with the state that it keeps. A member that lost its disk comes back
/// under another id. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// The id, unless it is 0 or absurd.
    pub fn checked(id: u64) -> Result<Self, BadBytes> {
        if (1..=NUMBER_MAX).contains(&id) { Ok(Self(id)) } else { Err(BadBytes) }
    }
}

/// The members as the entries so far have made them. Lists are in ascending order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Members {
    /// Whose majority elects and commits. Empty only on a replica that has not joined yet.
    pub voters: Vec<ReplicaId>,
    /// They get everything and count nowhere.
    pub learners: Vec<ReplicaId>,
    /// While a change of several is under way: the voters before it, whose majority is needed as well.
    pub voters_outgoing: Vec<ReplicaId>,
    /// Outgoing voters that will be learners.
    pub learners_next: Vec<ReplicaId>,
    /// The leader ends the change by itself.
    pub auto_leave: bool,
}

/// One step of a change of the members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Makes it a voter; promotes it if it is a learner.
    AddVoter(ReplicaId),
    /// Makes it a learner; demotes it if it is a voter.
    AddLearner(ReplicaId),
    Remove(ReplicaId),
}

impl Members {
    /// A group of these voters and nobody else.
    pub fn of_voters(voters: &[ReplicaId]) -> Self {
        let mut voters = voters.to_vec();
        voters.sort_unstable();
        voters.dedup();
        Self { voters, ..Self::default() }
    }

    /// Two sets of voters are in force.
    pub fn is_joint(&self) -> bool {
        !self.voters_outgoing.is_empty()
    }

    /// Its vote counts, in one of the sets at least.
    pub fn is_voter(&self, id: ReplicaId) -> bool {
        self.voters.contains(&id) || self.voters_outgoing.contains(&id)
    }

    /// All that are in a role, each once, in ascending order.
    pub fn all(&self) -> Vec<ReplicaId> {
        let mut all = [&self.voters[..], &self.learners, &self.voters_outgoing].concat();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// This one decides alone.
    pub fn is_only_voter(&self, id: ReplicaId) -> bool {
        !self.is_joint() && self.voters == [id]
    }

    /// There is nobody else. Asked in every step, so it allocates nothing.
    pub fn is_alone(&self, id: ReplicaId) -> bool {
        self.is_only_voter(id) && self.learners.is_empty()
    }

    /// What a group can be in: anything else never comes from a change that was agreed on.
    pub fn is_valid(&self) -> bool {
        let lists = [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next];
        let are_sorted = lists.iter().all(|list| list.windows(2).all(|pair| pair[0] < pair[1]));
        let are_ids =
            lists.iter().all(|list| list.iter().all(|id| ReplicaId::checked(id.0).is_ok()));
        let are_few = lists.iter().map(|list| list.len()).sum::<usize>() <= MEMBERS_MAX;
        let are_apart = self.learners.iter().all(|id| !self.is_voter(*id));
        let are_next_outgoing = self
            .learners_next
            .iter()
            .all(|id| self.voters_outgoing.contains(id) && !self.voters.contains(id));
        let is_plain = !self.auto_leave && self.learners_next.is_empty();
        are_sorted
            && are_ids
            && are_few
            && are_apart
            && are_next_outgoing
            && !self.voters.is_empty()
            && (self.is_joint() || is_plain)
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        for list in [&self.voters, &self.learners, &self.voters_outgoing, &self.learners_next] {
            writer.u32(list.len() as u32);
            list.iter().for_each(|id| writer.u64(id.0));
        }
        writer.u8(u8::from(self.auto_leave));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let mut list = || reader.list(|reader| ReplicaId::checked(reader.u64()?));
        let (voters, learners, voters_outgoing, learners_next) =
            (list()?, list()?, list()?, list()?);
        let auto_leave = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(BadBytes),
        };
        let members = Self { voters, learners, voters_outgoing, learners_next, auto_leave };
        if members.is_valid() { Ok(members) } else { Err(BadBytes) }
    }
}

impl Change {
    pub(super) fn write(self, writer: &mut Writer) {
        let (tag, id) = match self {
            Self::AddVoter(id) => (1, id),
            Self::AddLearner(id) => (2, id),
            Self::Remove(id) => (3, id),
        };
        writer.u8(tag);
        writer.u64(id.0);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let tag = reader.u8()?;
        let id = ReplicaId::checked(reader.u64()?)?;
        match tag {
            1 => Ok(Self::AddVoter(id)),
            2 => Ok(Self::AddLearner(id)),
            3 => Ok(Self::Remove(id)),
            _ => Err(BadBytes),
        }
    }
}
