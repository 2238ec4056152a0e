//! What a shard asks of its disks, and what it hears back. The words of the seam only: the log
//! gives the orders, the driver or the simulator carries them out.

use crate::memory::Slot;

/// One order in flight. Unique on its shard for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// A file that the shard has open. Chosen by the shard; unique for the life of the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

/// A data directory (a disk) of the broker, by its place in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct DirectoryId(pub u16);

/// Where a file or folder is: a data directory and a path relative to it, such as
/// `lanes/7/00000000000000000017.seg`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place {
    pub directory: DirectoryId,
    pub path: Box<str>,
}

/// An order to a disk. Orders are independent of each other: one that needs another to be
/// complete is given after its completion.
///
/// Positions and lengths of `Read`, `Write` and `Zero` are multiples of `BLOCK_BYTES`. `Write` owns
/// one reference of its slot, given back when it completes. `Read` fills a slot that the shard keeps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOrder {
    /// Makes a folder and its parents, and makes their directory entries durable.
    MakeFolder { place: Place },
    /// Lists the files of a folder, sorted by name. A folder that does not exist is empty.
    List { place: Place },
    /// Opens an existing file for direct reads and writes.
    Open { file: FileId, place: Place },
    /// Creates a file of `bytes` with space reserved (reads as zeros, extents unwritten).
    /// Fails with `Exists` if there is one. Not durable until `Flush` and `SyncFolder`.
    Create { file: FileId, place: Place, bytes: u64 },
    /// Reads `len` bytes at `position` into the start of the slot.
    Read { file: FileId, position: u64, slot: Slot, len: u32 },
    /// Writes the first `len` bytes of the slot at `position`.
    Write { file: FileId, position: u64, slot: Slot, len: u32 },
    /// Writes zeros, which turns reserved space into space that a write only overwrites.
    Zero { file: FileId, position: u64, len: u32 },
    /// `fdatasync`: covers the writes whose completion was reported before this order was given.
    Flush { file: FileId },
    /// Makes the creations, renames and removals in a folder durable.
    SyncFolder { place: Place },
    /// Renames an open file within its data directory, replacing what was there.
    Rename { file: FileId, to: Place },
    /// Closes a file. No order for it may be in flight.
    Close { file: FileId },
    /// Removes a file by name; one that does not exist is no error.
    Remove { place: Place },
    /// Asks how much room the data directory has.
    Space { directory: DirectoryId },
}

/// A completed order, stamped by the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskDone {
    Done,
    /// `Open`: the file's size.
    Opened {
        bytes: u64,
    },
    Listed {
        files: Vec<ListedFile>,
    },
    Space {
        free_bytes: u64,
    },
    Failed(DiskError),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedFile {
    /// The name without the folder.
    pub name: Box<str>,
    pub bytes: u64,
}

/// Why an order failed. A short read or write counts as `Io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskError {
    /// ENOSPC or EDQUOT.
    Full,
    /// ENOENT.
    Missing,
    /// EEXIST.
    Exists,
    /// EMFILE, ENFILE or ENOMEM: nothing is wrong with the disk itself.
    Resources,
    /// Anything else. After a failed write or flush the data directory is failed for good.
    Io,
}
