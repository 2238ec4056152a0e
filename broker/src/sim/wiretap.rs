//! Listens to one direction of a connection and cuts it into frames, so that checks see what was
//! really said, whatever the client and the shard believe.

use corelog_protocol::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};

#[derive(Debug, Default)]
pub struct Wiretap {
    buffer: Vec<u8>,
    /// Where the next frame starts in the buffer.
    start: usize,
    /// Bytes of an unknown frame still to be skipped.
    skip: usize,
    /// The stream is no longer understood.
    lost: bool,
}

impl Wiretap {
    /// The first `skip` bytes are no frames.
    pub fn behind(skip: usize) -> Self {
        Self { skip, ..Self::default() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.lost {
            return;
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..]);
    }

    /// The next whole frame: its header and all of its bytes.
    pub fn frame(&mut self) -> Option<(FrameHeader, &[u8])> {
        loop {
            if self.lost {
                return None;
            }
            let rest = &self.buffer[self.start..];
            match FrameHeader::decode(rest, u32::MAX) {
                Ok(header) if rest.len() >= header.frame_bytes() => {
                    let start = self.start;
                    self.start += header.frame_bytes();
                    return Some((header, &self.buffer[start..self.start]));
                }
                Ok(_) | Err(FrameError::Incomplete { .. }) => return None,
                Err(FrameError::Unsupported(frame)) => {
                    let whole = FRAME_HEADER_BYTES + frame.skip_bytes as usize;
                    let here = whole.min(rest.len());
                    self.skip = whole - here;
                    self.start += here;
                    if self.skip > 0 {
                        return None;
                    }
                }
                Err(_) => self.lost = true,
            }
        }
    }

    /// The header of the frame that has not arrived whole.
    pub fn partial(&self) -> Option<FrameHeader> {
        FrameHeader::decode(self.buffer.get(self.start..)?, u32::MAX).ok()
    }

    /// Whether bytes came that are no frames.
    pub fn is_lost(&self) -> bool {
        self.lost
    }
}
