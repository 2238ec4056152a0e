//! `corelog.meta`: which cluster, which broker and which of its disks a data directory is. Two
//! checksummed copies, one per 4 KiB block, replaced as a whole and made durable with the directory.
//!
//! ```text
//! 0  magic "CRLGMETA"   8  format u32   12  crc32c u32 (of the block with this field 0)
//! 16 cluster u128      32  broker u128  48  incarnation u64
//! 56 place u16         58  places u16   60  zeros to 4096
//! ```
//!
//! A directory without an identity is taken only if it holds nothing else: data whose identity
//! is lost is never adopted, and a disk that lost everything is never mistaken for an empty log.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use corelog_protocol::ids::{ClusterId, Incarnation};

use crate::driver::start_error::StartError;

/// The format of data directories that this version knows. 2: local entries of a log take no LSN. 3: segments
/// tell of epochs.
pub const FORMAT: u32 = 3;

pub const FILE: &str = "corelog.meta";

const MAGIC: &[u8; 8] = b"CRLGMETA";
const BLOCK_BYTES: usize = 4096;

/// Who a data directory is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    pub cluster: ClusterId,
    /// All directories of one broker share it.
    pub broker: u128,
    pub incarnation: Incarnation,
    /// This directory's place in the broker's list, and how long the list is.
    pub place: u16,
    pub places: u16,
}

/// Why a copy cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unreadable {
    Damaged,
    Format(u32),
}

impl Identity {
    fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..8].copy_from_slice(MAGIC);
        block[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        block[16..32].copy_from_slice(&self.cluster.0.to_le_bytes());
        block[32..48].copy_from_slice(&self.broker.to_le_bytes());
        block[48..56].copy_from_slice(&self.incarnation.0.to_le_bytes());
        block[56..58].copy_from_slice(&self.place.to_le_bytes());
        block[58..60].copy_from_slice(&self.places.to_le_bytes());
        let crc = crc32c::crc32c(&block);
        block[12..16].copy_from_slice(&crc.to_le_bytes());
        block
    }

    fn decode(block: &[u8; BLOCK_BYTES]) -> Result<Self, Unreadable> {
        fn at<const N: usize>(block: &[u8; BLOCK_BYTES], start: usize) -> [u8; N] {
            std::array::from_fn(|index| block[start + index])
        }
        let mut zeroed = *block;
        zeroed[12..16].fill(0);
        let crc = u32::from_le_bytes(at(block, 12));
        if at::<8>(block, 0) != *MAGIC || crc32c::crc32c(&zeroed) != crc {
            return Err(Unreadable::Damaged);
        }
        let format = u32::from_le_bytes(at(block, 8));
        if format != FORMAT {
            return Err(Unreadable::Format(format));
        }
        Ok(Self {
            cluster: ClusterId(u128::from_le_bytes(at(block, 16))),
            broker: u128::from_le_bytes(at(block, 32)),
            incarnation: Incarnation(u64::from_le_bytes(at(block, 48))),
            place: u16::from_le_bytes(at(block, 56)),
            places: u16::from_le_bytes(at(block, 58)),
        })
    }
}

/// Reads the identity of a directory; `None` if it has none.
fn read(directory: &Path) -> Result<Option<Identity>, StartError> {
    let bytes = match fs::read(directory.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(StartError::Directory {
                path: directory.to_owned(),
                action: "read the identity of",
                error,
            });
        }
    };
    let mut other = None;
    let (copies, _) = bytes.as_chunks::<BLOCK_BYTES>();
    for copy in copies.iter().take(2) {
        match Identity::decode(copy) {
            Ok(identity) => return Ok(Some(identity)),
            Err(Unreadable::Format(found)) => other = Some(found),
            Err(Unreadable::Damaged) => {}
        }
    }
    Err(match other {
        Some(found) => StartError::OtherFormat { path: directory.to_owned(), found, known: FORMAT },
        None => StartError::IdentityDamaged { path: directory.to_owned() },
    })
}

/// Replaces the identity of a directory; durable when it returns.
fn write(directory: &Path, identity: &Identity) -> Result<(), StartError> {
    let outcome = (|| -> io::Result<()> {
        let block = identity.encode();
        let new = directory.join("corelog.meta.new");
        let mut file = File::create(&new)?;
        file.write_all(&block)?;
        file.write_all(&block)?;
        file.sync_all()?;
        fs::rename(&new, directory.join(FILE))?;
        File::open(directory)?.sync_all()?;
        // The directory's own entry, if it was made just now.
        if let Some(parent) = directory.canonicalize()?.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    })();
    outcome.map_err(|error| StartError::Directory {
        path: directory.to_owned(),
        action: "write the identity of",
        error,
    })
}

/// Reads or gives the identities of a broker's directories, which must be locked and exist.
/// `cluster` is the one that the configuration insists on, if it does.
pub fn establish(
    directories: &[PathBuf],
    cluster: Option<ClusterId>,
    mut random: impl FnMut() -> u128,
) -> Result<Identity, StartError> {
    let mut found: Vec<Option<Identity>> =
        directories.iter().map(|path| read(path)).collect::<Result<_, _>>()?;
    if found[0].is_none() && !directories.iter().any(|path| holds_lanes(path)) {
        // A first start that was cut short between two directories: nothing was ever stored.
        found.fill(None);
    }
    let places = directories.len() as u16;
    let first = match found.first().copied().flatten() {
        Some(first) => first,
        None => {
            // Without the first directory the metadata is gone: start only if all are new.
            if let Some(index) = found.iter().position(Option::is_some) {
                return Err(foreign(&directories[index], "another broker", "a new one"));
            }
            Identity {
                cluster: cluster.unwrap_or_else(|| ClusterId(random())),
                broker: random(),
                incarnation: Incarnation(random() as u64),
                place: 0,
                places,
            }
        }
    };
    if let Some(cluster) = cluster
        && cluster != first.cluster
    {
        return Err(foreign(&directories[0], &name(first.cluster), &name(cluster)));
    }
    for (place, (path, identity)) in (0u16..).zip(directories.iter().zip(&found)) {
        match identity {
            Some(identity) if identity.cluster != first.cluster => {
                return Err(foreign(path, &name(identity.cluster), &name(first.cluster)));
            }
            Some(identity) if identity.broker != first.broker => {
                return Err(foreign(path, "another broker of the cluster", "this one"));
            }
            Some(identity) if identity.place != place => {
                return Err(foreign(
                    path,
                    &format!("place {} of the list", identity.place),
                    &format!("place {place}"),
                ));
            }
            Some(_) => {}
            // It had an identity once, and lost it with all it held.
            None if found[0].is_some() && place < first.places => {
                return Err(foreign(path, "nobody (its identity is missing)", "this broker"));
            }
            None => {
                if holds_lanes(path) {
                    return Err(foreign(
                        path,
                        "nobody (it holds data without identity)",
                        "a broker",
                    ));
                }
            }
        }
    }
    if places < first.places {
        return Err(foreign(
            &directories[0],
            &format!("a broker with {} data directories", first.places),
            &format!("one with {places}"),
        ));
    }
    // The first directory last: until it has its identity, a start that was cut short begins anew.
    for (place, path) in (0..places).zip(directories).rev() {
        let wanted = Identity { place, places, ..first };
        if found[usize::from(place)] != Some(wanted) {
            write(path, &wanted)?;
        }
    }
    Ok(Identity { places, ..first })
}

fn holds_lanes(directory: &Path) -> bool {
    fs::read_dir(directory.join("lanes")).is_ok_and(|mut entries| entries.next().is_some())
}

fn name(cluster: ClusterId) -> String {
    format!("cluster {:032x}", cluster.0)
}

fn foreign(path: &Path, found: &str, expected: &str) -> StartError {
    StartError::ForeignDirectory {
        path: path.to_owned(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fatal::FatalReason;

    fn numbers() -> impl FnMut() -> u128 {
        let mut last = 0;
        move || {
            last += 1;
            last
        }
    }

    fn folders(count: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().expect("a folder");
        let paths: Vec<PathBuf> = (0..count).map(|i| root.path().join(i.to_string())).collect();
        for path in &paths {
            fs::create_dir(path).expect("a folder");
        }
        (root, paths)
    }

    #[test]
    fn an_identity_is_given_once_and_kept() {
        let (_root, paths) = folders(2);
        let given = establish(&paths, None, numbers()).expect("new");
        let mut later = numbers();
        later();
        assert_eq!(establish(&paths, None, later).expect("known"), given);
    }

    #[test]
    fn one_damaged_copy_is_survived_and_two_are_refused() {
        let (_root, paths) = folders(1);
        let given = establish(&paths, None, numbers()).expect("new");
        let file = paths[0].join(FILE);
        let mut bytes = fs::read(&file).expect("written");
        bytes[20] ^= 1;
        fs::write(&file, &bytes).expect("damaged");
        assert_eq!(establish(&paths, None, numbers()).expect("second copy"), given);
        bytes[BLOCK_BYTES + 20] ^= 1;
        fs::write(&file, &bytes).expect("damaged");
        let error = establish(&paths, None, numbers()).expect_err("both damaged");
        assert_eq!(error.reason(), FatalReason::IdentityDamaged);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let identity = Identity {
            cluster: ClusterId(7),
            broker: 8,
            incarnation: Incarnation(9),
            place: 0,
            places: 1,
        };
        let block = identity.encode();
        for bit in 0..BLOCK_BYTES * 8 {
            let mut flipped = block;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Identity::decode(&flipped), Err(Unreadable::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn foreign_swapped_lost_and_newer_directories_are_refused() {
        let (_root, paths) = folders(2);
        establish(&paths, None, numbers()).expect("new");

        let swapped = vec![paths[1].clone(), paths[0].clone()];
        let reason = |result: Result<Identity, StartError>| result.expect_err("refused").reason();
        assert_eq!(reason(establish(&swapped, None, numbers())), FatalReason::ForeignDirectory);
        assert_eq!(reason(establish(&paths[..1], None, numbers())), FatalReason::ForeignDirectory);
        let other = Some(ClusterId(99));
        assert_eq!(reason(establish(&paths, other, numbers())), FatalReason::ForeignDirectory);

        let (_other_root, others) = folders(1);
        establish(&others, Some(ClusterId(99)), numbers()).expect("new");
        let mixed = vec![paths[0].clone(), others[0].clone()];
        assert_eq!(reason(establish(&mixed, None, numbers())), FatalReason::ForeignDirectory);

        fs::remove_file(paths[1].join(FILE)).expect("lost");
        assert_eq!(reason(establish(&paths, None, numbers())), FatalReason::ForeignDirectory);

        let mut block = Identity {
            cluster: ClusterId(1),
            broker: 1,
            incarnation: Incarnation(1),
            place: 0,
            places: 1,
        }
        .encode();
        for format in [FORMAT - 1, FORMAT + 1] {
            block[8..12].copy_from_slice(&format.to_le_bytes());
            block[12..16].fill(0);
            let crc = crc32c::crc32c(&block);
            block[12..16].copy_from_slice(&crc.to_le_bytes());
            fs::write(others[0].join(FILE), block).expect("written");
            assert_eq!(reason(establish(&others, None, numbers())), FatalReason::OtherFormat);
        }
    }

    #[test]
    fn a_first_start_that_was_cut_short_begins_anew() {
        let (_root, paths) = folders(2);
        let given = establish(&paths, None, numbers()).expect("new");
        fs::remove_file(paths[0].join(FILE)).expect("not yet written");
        assert_eq!(establish(&paths, None, numbers()).expect("anew"), given);
        fs::remove_file(paths[0].join(FILE)).expect("lost");
        fs::create_dir_all(paths[1].join("lanes/1")).expect("a lane");
        let error = establish(&paths, None, numbers()).expect_err("not without the metadata");
        assert_eq!(error.reason(), FatalReason::ForeignDirectory);
    }

    #[test]
    fn data_without_an_identity_is_not_adopted() {
        let (_root, paths) = folders(1);
        fs::create_dir_all(paths[0].join("lanes/1")).expect("a lane");
        let error = establish(&paths, None, numbers()).expect_err("refused");
        assert_eq!(error.reason(), FatalReason::ForeignDirectory);
    }
}
