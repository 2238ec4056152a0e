//! The steps of a file system's life, as a trace records them.

use std::sync::Arc;

use crate::disk::Place;

/// A file, whatever its name. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct InodeId(pub u32);

/// What a write carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    Bytes(Arc<[u8]>),
    Zeros(usize),
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Content::Bytes(bytes) => bytes.len(),
            Content::Zeros(len) => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies a range of the content to the start of `target`.
    pub fn copy_to(&self, start: usize, target: &mut [u8]) {
        match self {
            Content::Bytes(bytes) => target.copy_from_slice(&bytes[start..start + target.len()]),
            Content::Zeros(_) => target.fill(0),
        }
    }
}

/// One step. Writes, flushes and folder syncs take time, so that they start and end; the rest
/// happens at once. `id`s tie an end to its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    MakeFolder {
        place: Place,
    },
    Create {
        inode: InodeId,
        place: Place,
        bytes: u64,
    },
    WriteStart {
        id: u64,
        inode: InodeId,
        position: u64,
        content: Content,
    },
    /// Not `ok`: the device refused, and any part of the write may or may not be there.
    WriteEnd {
        id: u64,
        ok: bool,
    },
    /// The device reports success, and has done nothing: a fault that voids every promise.
    WriteLost {
        id: u64,
    },
    FlushStart {
        id: u64,
        inode: InodeId,
    },
    /// Not `ok`: what the flush would have covered is in doubt for ever; a later flush that
    /// succeeds does not cover it either.
    FlushEnd {
        id: u64,
        ok: bool,
    },
    SyncStart {
        id: u64,
        place: Place,
    },
    SyncEnd {
        id: u64,
        ok: bool,
    },
    Rename {
        inode: InodeId,
        from: Place,
        to: Place,
    },
    Remove {
        place: Place,
    },
    Open {
        inode: InodeId,
    },
    Close {
        inode: InodeId,
    },
}
