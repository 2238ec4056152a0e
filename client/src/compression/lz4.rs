//! LZ4: one frame of independent blocks, without checksums of its own, since the batch has one.

use super::PackFault;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use std::io::{BufRead, Write};

/// How a frame begins. Frames of the old format, with blocks of 8 MiB, begin otherwise.
const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();

/// Appends the frame to `out`. False: it failed, and what was appended is of no use.
pub(super) fn pack(records: &[u8], out: &mut Vec<u8>) -> bool {
    // One block if it goes: LZ4 looks back 64 KiB, and does not look into another block.
    let block = match records.len().div_ceil(64 << 10) {
        0..=1 => BlockSize::Max64KB,
        2..=4 => BlockSize::Max256KB,
        5..=16 => BlockSize::Max1MB,
        _ => BlockSize::Max4MB,
    };
    let frame = FrameInfo::new().block_size(block).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(frame, out);
    encoder.write_all(records).is_ok() && encoder.finish().is_ok()
}

/// Appends what the frame holds to `out`, until that has `bytes_max`. The decoder holds two blocks
/// of the size that the frame declares, 64 KiB to 4 MiB, and what it looks back to.
pub(super) fn unpack(frame: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), PackFault> {
    if !frame.starts_with(&MAGIC) {
        return Err(PackFault::Garbage);
    }
    let mut decoder = FrameDecoder::new(frame);
    loop {
        let block = decoder.fill_buf().map_err(|_| PackFault::Garbage)?;
        if block.is_empty() {
            break;
        }
        if out.len() + block.len() > bytes_max {
            return Err(PackFault::TooLarge);
        }
        out.extend_from_slice(block);
        let bytes = block.len();
        decoder.consume(bytes);
    }
    // It also stops at an empty block; then there is more.
    if decoder.into_inner().is_empty() { Ok(()) } else { Err(PackFault::Garbage) }
}
