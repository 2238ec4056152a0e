//! Arbitrary bytes in the files of a lane: recovery ends, nothing unsound is served, and a second recovery
//! comes to the same. The input changes a directory that a log has written; with its first byte it may ask for
//! checksums that are right again, as no accident would make them, to look behind them.

use std::sync::{Arc, OnceLock};

use corelog_broker::log::Retention;
use corelog_broker::sim::disk::Image;
use corelog_broker::sim::sweep::cow::CowImage;
use corelog_broker::sim::sweep::life::Life;
use corelog_broker::sim::sweep::rig::small_config;
use corelog_broker::sim::sweep::survey::Surveyor;
use corelog_protocol::checksum::{Crc, crc32c};
use corelog_protocol::ids::PartitionId;

use crate::protocol::mend_entries;
use crate::tape::{Script, Tape};

const BLOCK: usize = 4096;
const CHANGES_MAX: usize = 16;

/// A directory with sealed segments, footers, an active segment and a prepared one.
struct Base {
    image: Image,
    surveyor: Surveyor,
}

fn base() -> &'static Base {
    static BASE: OnceLock<Base> = OnceLock::new();
    BASE.get_or_init(|| build().expect("an honest life of a log"))
}

fn build() -> Result<Base, String> {
    let ids = [PartitionId(21), PartitionId(22)];
    let partitions = ids.map(|id| (id, Retention::default())).to_vec();
    let mut life = Life::begin(small_config(), partitions, 7).recovered()?;
    let mut number = 0;
    while life.rig.heard.rolls < 2 {
        number += 1;
        life.append_patiently(ids[number % 2], 2, [60, 3_000][number % 2])?;
        if number % 5 == 0 {
            // Refused when the pipeline is full: then there is one less.
            let _ = life.append_state(ids[0], 50);
        }
        life.go_on(3);
    }
    life.append_patiently(ids[0], 1, 100)?;
    life.idle()?;
    let image = life.rig.disk.settled();
    Ok(Base { image, surveyor: life.end("fuzz").surveyor })
}

/// See the module.
pub fn run(input: &[u8]) {
    let base = base();
    let mut tape = Tape::new(input);
    let is_mended = tape.u8() & 1 == 1;
    let mut image = base.image.clone();
    for _ in 0..CHANGES_MAX {
        if tape.is_over() {
            break;
        }
        change(&mut image, &mut tape);
    }
    if is_mended {
        image.files.values_mut().for_each(|bytes| mend_segment(&mut Arc::make_mut(bytes)[..]));
    }
    let image = CowImage::from(image);
    let mut rig = base.surveyor.boot(&image, 1);
    if let Err(violation) = rig.recover() {
        // To refuse a start is an answer, too.
        assert!(rig.heard.failed.is_some(), "{violation}");
        return;
    }
    let checked = if is_mended {
        base.surveyor.look(&image, 1).map(drop)
    } else {
        base.surveyor.survey(&image, 1).map(drop)
    };
    checked.unwrap_or_else(|violation| panic!("{violation}"));
}

fn change(image: &mut Image, tape: &mut Tape<'_>) {
    let what = tape.u8();
    let file = tape.below(image.files.len());
    let Some(bytes) = image.files.values_mut().nth(file).map(Arc::make_mut) else { return };
    let at = match bytes.len() {
        0 => return,
        len => tape.u32() as usize % len,
    };
    match what % 6 {
        0 => overwrite(bytes, at, tape.bytes()),
        1 => bytes[at] ^= tape.u8(),
        2 => {
            let end = (at + usize::from(tape.u16())).min(bytes.len());
            bytes[at..end].fill(0);
        }
        // A block that went to another place.
        3 => {
            let block = bytes[at - at % BLOCK..].iter().copied().take(BLOCK).collect::<Vec<_>>();
            let (file, at) = (tape.below(image.files.len()), usize::from(tape.u8()) * BLOCK);
            if let Some(target) = image.files.values_mut().nth(file).map(Arc::make_mut) {
                overwrite(target, at, &block);
            }
        }
        4 => {
            let value = tape.u64().to_le_bytes();
            overwrite(bytes, at - at % 8, &value);
        }
        _ => {
            // Files end with a block, as those of a disk do.
            bytes.truncate(at - at % BLOCK);
        }
    }
}

fn overwrite(target: &mut [u8], at: usize, bytes: &[u8]) {
    let Some(target) = target.get_mut(at..) else { return };
    let len = target.len().min(bytes.len());
    target[..len].copy_from_slice(&bytes[..len]);
}

/// Makes the checksums of headers, commits, entries and the footer right again.
fn mend_segment(bytes: &mut [u8]) {
    for block in 0..bytes.len() / BLOCK {
        let rest = &mut bytes[block * BLOCK..];
        if rest.starts_with(b"CRLGSEGM") {
            let crc = crc32c(&rest[..124]);
            rest[124..128].copy_from_slice(&crc.to_le_bytes());
        } else if rest.starts_with(b"CRLC") {
            mend_commit(rest);
        }
    }
    let Some(at) = bytes.len().checked_sub(64) else { return };
    if bytes[at..].starts_with(b"CRLGFOOT") {
        let field = |from: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at + from..at + from + 8]);
            usize::try_from(u64::from_le_bytes(field)).unwrap_or(usize::MAX)
        };
        let (start, len) = (field(32), field(40));
        if let Some(image) = bytes.get(start..start.saturating_add(len)) {
            let crc = crc32c(image);
            bytes[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c(&bytes[at..at + 60]);
        bytes[at + 60..].copy_from_slice(&crc.to_le_bytes());
    }
}

fn mend_commit(rest: &mut [u8]) {
    let length = u32::from_le_bytes([rest[32], rest[33], rest[34], rest[35]]) as usize;
    let end = length.clamp(64, rest.len());
    mend_entries(&mut rest[64..end]);
    // The digest is over what the entries' headers say, in order.
    let mut digest = Crc::new();
    let mut at = 64_usize;
    let count = u32::from_le_bytes([rest[36], rest[37], rest[38], rest[39]]);
    for _ in 0..count {
        let Some(header) = rest.get(at..at.saturating_add(64)) else { break };
        digest.update(&header[4..8]);
        let body = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        at = at.saturating_add(64 + body.next_multiple_of(8));
    }
    rest[56..60].copy_from_slice(&digest.value().to_le_bytes());
    let mut crc = Crc::new();
    crc.update(&rest[..4]);
    crc.update(&rest[8..64]);
    rest[4..8].copy_from_slice(&crc.value().to_le_bytes());
}

/// One change of each kind, with and without right checksums.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let start =
        |mended, what: u8, file: u8, at| Script::default().numbers(&[mended, what, file]).u32(at);
    let mut seeds = Vec::new();
    for mended in 0..2 {
        seeds.push(start(mended, 0, 0, 8192).bytes(b"not a commit").0);
        seeds.push(start(mended, 1, 1, 8192 + 40).numbers(&[0xff]).0);
        seeds.push(start(mended, 2, 0, 12_288).u16(4096).0);
        seeds.push(start(mended, 3, 0, 8192).numbers(&[1, 3]).0);
        seeds.push(start(mended, 4, 0, 8192 + 48).u64(1 << 61).0);
        seeds.push(start(mended, 5, 1, 20_000).0);
    }
    seeds
}
