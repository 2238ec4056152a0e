//! The partitions that this shard serves, by id. Ids are dense and never given out twice, so two
//! array look-ups find one: a page of 256 ids, then the place in the page.

use corelog_protocol::ids::PartitionId;

use crate::shard::jobs::JobId;

const PAGE: usize = 256;
const NONE: u32 = u32::MAX;

/// Below this, waiters that wait no longer are not looked for.
const WAITERS_MIN: usize = 16;

/// A fetch that waits for records, and which of its waits this is: an earlier one means nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    pub fetch: JobId,
    pub wait: u32,
}

/// A partition led here.
#[derive(Debug)]
pub struct Partition {
    /// Its lane, by index on this shard.
    pub lane: u16,
    /// Where the lane's log found it last.
    pub log_at: u32,
    /// Fetches that wait for records of it, and some that do no longer: nobody looks for himself in
    /// all lists to leave them.
    pub waiters: Vec<Waiter>,
    /// So long, the list is searched for those.
    compact_at: usize,
}

impl Partition {
    /// Adds a waiter. Those that wait no longer go when they may be as many as the others.
    pub fn push_waiter(&mut self, waiter: Waiter, waits: impl Fn(Waiter) -> bool) {
        if self.waiters.len() >= self.compact_at {
            self.waiters.retain(|&known| waits(known));
            self.compact_at = WAITERS_MIN.max(2 * self.waiters.len());
        }
        self.waiters.push(waiter);
    }
}

#[derive(Debug, Default)]
pub struct Partitions {
    pages: Vec<Option<Box<Page>>>,
    slots: Vec<Option<Partition>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Page {
    slots: [u32; PAGE],
    used: u32,
}

impl Partitions {
    #[inline]
    fn slot(&self, id: PartitionId) -> Option<u32> {
        let page = self.pages.get(id.0 as usize / PAGE)?.as_deref()?;
        Some(page.slots[id.0 as usize % PAGE]).filter(|&slot| slot != NONE)
    }

    /// How many are served.
    pub fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[inline]
    pub fn get(&self, id: PartitionId) -> Option<&Partition> {
        self.slots[self.slot(id)? as usize].as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        let slot = self.slot(id)?;
        self.slots[slot as usize].as_mut()
    }

    pub fn insert(&mut self, id: PartitionId, lane: u16) {
        assert!(self.slot(id).is_none(), "{id:?} is served already");
        let partition = Partition { lane, log_at: 0, waiters: Vec::new(), compact_at: WAITERS_MIN };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(partition);
                slot
            }
            None => {
                self.slots.push(Some(partition));
                self.slots.len() as u32 - 1
            }
        };
        let at = id.0 as usize / PAGE;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        let page =
            self.pages[at].get_or_insert_with(|| Box::new(Page { slots: [NONE; PAGE], used: 0 }));
        page.slots[id.0 as usize % PAGE] = slot;
        page.used += 1;
    }

    /// Whoever waits for records of a lane (by its index on this shard).
    pub fn take_waiters_of(&mut self, lane: u16) -> Vec<Waiter> {
        let partitions = self.slots.iter_mut().flatten().filter(|found| found.lane == lane);
        partitions.flat_map(|partition| std::mem::take(&mut partition.waiters)).collect()
    }

    pub fn remove(&mut self, id: PartitionId) -> Option<Partition> {
        let slot = self.slot(id)?;
        let at = id.0 as usize / PAGE;
        let page = self.pages[at].as_deref_mut()?;
        page.slots[id.0 as usize % PAGE] = NONE;
        page.used -= 1;
        if page.used == 0 {
            self.pages[at] = None;
        }
        self.free.push(slot);
        self.slots[slot as usize].take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_come_and_go_and_are_never_mixed_up() {
        let mut partitions = Partitions::default();
        for id in (1..2_000).step_by(3) {
            partitions.insert(PartitionId(id), id as u16);
        }
        for id in (1..2_000).step_by(6) {
            assert_eq!(partitions.remove(PartitionId(id)).unwrap().lane, id as u16);
            assert!(partitions.remove(PartitionId(id)).is_none());
        }
        for id in 2_000..2_100 {
            partitions.insert(PartitionId(id), id as u16);
        }
        for id in 0..2_200 {
            let lives = (2_000..2_100).contains(&id) || (id < 2_000 && id % 6 == 4);
            let found = partitions.get(PartitionId(id)).map(|partition| partition.lane);
            assert_eq!(found, lives.then_some(id as u16), "{id}");
        }
        assert!(partitions.get(PartitionId(u32::MAX)).is_none());
        let living = (0..2_200).filter(|&id| partitions.get(PartitionId(id)).is_some()).count();
        assert_eq!(partitions.count(), living);
    }
}
