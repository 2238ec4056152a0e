//! A replica's copy of the lane, as its disk has it: one slot an LSN, from 1.
//!
//! An entry is known by its epoch and the life of the leader that wrote it. A correct leader has one life in an epoch,
//! so the protocol may compare (epoch, LSN) alone; the life is there for the properties, which do not trust it.
//! Knows nothing of roles, promises or peers.

use std::fmt;
use std::hash::{Hash, Hasher};

/// The most entries that a log can have. Bounds choose less.
pub const LSN_MAX: usize = 5;

/// The last entry of a log: logs are compared by epoch first. (0, 0) is the empty log.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Epoch of the entry.
    pub epoch: u8,
    /// Its place.
    pub lsn: u8,
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {})", self.epoch, self.lsn)
    }
}

/// What identifies an entry.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// The epoch in which it was written.
    pub epoch: u8,
    /// 0, or 1 if the leader began that epoch a second time (only when an error is planted).
    pub life: u8,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}{}", self.epoch, if self.life == 0 { "" } else { "'" })
    }
}

/// What the disk has at an LSN.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// Handed to the device: a crash may keep it, tear it or lose it.
    Written(Entry),
    /// Covered by a flush, or found whole by a recovery.
    #[default]
    Empty,
    /// Covered by a flush.
    Durable(Entry),
    /// Something was here and does not pass its checksum: torn and never durable, or durable and rotten. Nobody can tell which.
    Bad,
    /// A copy from a peer, written beside a bad one and not flushed. A crash may bring the bad one back.
    Rewritten(Entry),
}

impl Slot {
    /// The entry, if it can be read.
    pub fn entry(self) -> Option<Entry> {
        match self {
            Slot::Written(entry) | Slot::Durable(entry) | Slot::Rewritten(entry) => Some(entry),
            Slot::Bad | Slot::Empty => None,
        }
    }

    /// Whether a crash may change it.
    pub fn is_volatile(self) -> bool {
        matches!(self, Slot::Written(_) | Slot::Rewritten(_))
    }

    fn code(self) -> u8 {
        let of = |entry: Entry| entry.epoch << 1 | entry.life;
        match self {
            Slot::Empty => 0,
            Slot::Bad => 1,
            Slot::Written(entry) => 0x40 | of(entry),
            Slot::Durable(entry) => 0x80 | of(entry),
            Slot::Rewritten(entry) => 0xc0 | of(entry),
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Empty => write!(f, "-"),
            Slot::Bad => write!(f, "bad"),
            Slot::Written(entry) => write!(f, "{entry:?}~"),
            Slot::Durable(entry) => write!(f, "{entry:?}"),
            Slot::Rewritten(entry) => write!(f, "{entry:?}~bad"),
        }
    }
}

/// Slots 1 to `len`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Log {
    slots: [Slot; LSN_MAX],
    len: u8,
}

impl Hash for Log {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut word = u64::from(self.len);
        for slot in self.slots {
            word = word << 8 | u64::from(slot.code());
        }
        state.write_u64(word);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Log {
    /// LSN of the last slot, whatever it holds; 0 if there is none.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot at `lsn`, which is at least 1; empty above the end.
    pub fn at(&self, lsn: u8) -> Slot {
        self.slots.get(usize::from(lsn) - 1).copied().unwrap_or_default()
    }

    /// The slots in order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.slots[..usize::from(self.len)].iter().copied()
    }

    /// Adds a slot at the end.
    pub fn push(&mut self, slot: Slot) {
        self.slots[usize::from(self.len)] = slot;
        self.len += 1;
    }

    /// Puts `slot` in the place of what is at `lsn`.
    pub fn set(&mut self, lsn: u8, slot: Slot) {
        assert!(lsn >= 1 && lsn <= self.len);
        self.slots[usize::from(lsn) - 1] = slot;
    }

    /// Keeps slots 1 to `len`.
    pub fn cut(&mut self, len: u8) {
        for slot in &mut self.slots[usize::from(len)..] {
            *slot = Slot::Empty;
        }
        self.len = self.len.min(len);
    }

    /// LSN through which every entry can be read.
    pub fn readable(&self) -> u8 {
        self.iter().take_while(|slot| slot.entry().is_some()).count() as u8
    }

    /// LSN through which every entry is durable.
    pub fn durable(&self) -> u8 {
        self.iter().take_while(|slot| matches!(slot, Slot::Durable(_))).count() as u8
    }

    /// Whether something cannot be read, or would not be after a crash.
    pub fn has_bad(&self) -> bool {
        self.iter().any(|slot| matches!(slot, Slot::Bad | Slot::Rewritten(_)))
    }

    /// The position of the entry at `lsn`; (0, 0) for LSN 0.
    pub fn position(&self, lsn: u8) -> Position {
        let epoch = if lsn == 0 { 0 } else { self.at(lsn).entry().map_or(0, |entry| entry.epoch) };
        Position { epoch, lsn }
    }

    /// Whether the log can be read through `position`, and has that very entry there.
    pub fn reads_through(&self, position: Position) -> bool {
        position.lsn <= self.readable() && self.position(position.lsn) == position
    }

    /// LSN of the first entry of `epoch`, if it can be read.
    pub fn first_of(&self, epoch: u8) -> Option<u8> {
        (1..=self.len).find(|&lsn| self.at(lsn).entry().is_some_and(|entry| entry.epoch == epoch))
    }

    /// A flush: all that was written is durable.
    pub fn flush(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Written(entry) | Slot::Rewritten(entry) = *slot {
                *slot = Slot::Durable(entry);
            }
        }
    }
}
