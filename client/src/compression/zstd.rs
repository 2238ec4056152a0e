//! Zstandard: one frame, at the library's default level.

use super::PackFault;
use std::fmt;
use zstd::bulk::Compressor;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::get_frame_content_size;

/// 3, the default: beyond it a batch of 256 KiB gets little smaller and much slower.
const LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

/// The window is what the library allocates because a frame declares it: 2^24 is the 16 MiB that a
/// whole batch may have.
const WINDOW_LOG_MAX: u32 = 24;

/// Output grows by at least this much.
const CHUNK_BYTES: usize = 64 << 10;

/// Contexts, made when they are first needed: about 1 MiB to pack, 160 KiB and a window to unpack.
#[derive(Default)]
pub(super) struct Zstd {
    compressor: Option<Compressor<'static>>,
    decoder: Option<Decoder<'static>>,
}

impl Zstd {
    /// Appends the frame to `out` if it is smaller than the records. False: it is not.
    pub(super) fn pack(&mut self, records: &[u8], out: &mut Vec<u8>) -> bool {
        if self.compressor.is_none() {
            self.compressor = Compressor::new(LEVEL).ok();
        }
        let Some(compressor) = &mut self.compressor else { return false };
        let at = out.len();
        out.resize(at + records.len(), 0);
        let Some(room) = out.get_mut(at..) else { return false };
        match compressor.compress_to_buffer(records, room) {
            Ok(bytes) => {
                out.truncate(at + bytes);
                true
            }
            // No room: it does not get smaller.
            Err(_) => false,
        }
    }

    /// Appends what the frame holds to `out`, until that has `bytes_max`.
    pub(super) fn unpack(
        &mut self,
        frame: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), PackFault> {
        if let Ok(Some(bytes)) = get_frame_content_size(frame)
            && bytes > bytes_max as u64
        {
            return Err(PackFault::TooLarge);
        }
        let decoder = self.decoder()?;
        decoder.reinit().map_err(|_| PackFault::Garbage)?;
        let mut input = InBuffer::around(frame);
        loop {
            out.reserve(CHUNK_BYTES);
            let before = (input.pos(), out.len());
            let mut output = OutBuffer::around_pos(out, before.1);
            let left = decoder.run(&mut input, &mut output).map_err(|_| PackFault::Garbage)?;
            if out.len() > bytes_max {
                return Err(PackFault::TooLarge);
            }
            if left == 0 {
                // The frame is whole. Nothing may follow it.
                let is_all = input.pos() == frame.len();
                return if is_all { Ok(()) } else { Err(PackFault::Garbage) };
            }
            if before == (input.pos(), out.len()) {
                // It wants more than there is.
                return Err(PackFault::Garbage);
            }
        }
    }

    fn decoder(&mut self) -> Result<&mut Decoder<'static>, PackFault> {
        if self.decoder.is_none() {
            let mut decoder = Decoder::new().map_err(|_| PackFault::Garbage)?;
            let window = DParameter::WindowLogMax(WINDOW_LOG_MAX);
            decoder.set_parameter(window).map_err(|_| PackFault::Garbage)?;
            self.decoder = Some(decoder);
        }
        self.decoder.as_mut().ok_or(PackFault::Garbage)
    }
}

impl fmt::Debug for Zstd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Zstd").finish_non_exhaustive()
    }
}
