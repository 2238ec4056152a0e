//! One connection: a non-blocking socket, and what waits to be written to it. Writes take as many
//! pieces as one call may.

use crate::engine::{LinkId, Outgoing};
use mio::net::TcpStream;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;

/// Pieces of one vectored write. The kernel takes 1,024; past a few dozen nothing is won.
const PIECES_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Socket {
    pub link: LinkId,
    /// Shared with the IO thread, which reads without holding the lock.
    pub stream: Arc<TcpStream>,
    pub is_connected: bool,
    outgoing: VecDeque<Outgoing>,
    /// Of the first piece of `outgoing`, already written.
    written: usize,
    /// The socket took less than it was given: it will say when it takes more.
    is_clogged: bool,
}

impl Socket {
    pub(super) fn new(link: LinkId, stream: TcpStream) -> Self {
        Self {
            link,
            stream: Arc::new(stream),
            is_connected: false,
            outgoing: VecDeque::new(),
            written: 0,
            is_clogged: false,
        }
    }

    pub(super) fn push(&mut self, bytes: Outgoing) {
        self.outgoing.push_back(bytes);
    }

    pub(super) fn unclog(&mut self) {
        self.is_clogged = false;
    }

    /// Whether a write makes sense now.
    pub(super) fn may_write(&self) -> bool {
        self.is_connected && !self.is_clogged && !self.outgoing.is_empty()
    }

    /// Writes what the socket takes in one call. Gives the bytes taken.
    pub(super) fn write(&mut self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let mut count = 0;
        let mut bytes = 0;
        let mut skip = self.written;
        'fill: for outgoing in &self.outgoing {
            for piece in outgoing.pieces() {
                let passed = skip.min(piece.len());
                skip -= passed;
                let piece = &piece[passed..];
                if piece.is_empty() {
                    continue;
                }
                if count == PIECES_MAX {
                    break 'fill;
                }
                slices[count] = IoSlice::new(piece);
                bytes += piece.len();
                count += 1;
            }
        }
        let written = loop {
            match (&*self.stream).write_vectored(&slices[..count]) {
                Ok(written) => break written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break 0,
                Err(error) => return Err(error),
            }
        };
        self.is_clogged = written < bytes;
        self.written += written;
        while let Some(first) = self.outgoing.front()
            && first.len() <= self.written
        {
            self.written -= first.len();
            self.outgoing.pop_front();
        }
        Ok(written)
    }
}
