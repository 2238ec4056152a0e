//! The connections of one shard: what to read where, and what is still to be sent.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::Waker;

use glommio::net::TcpStream;
use socket2::SockRef;

use crate::driver::memory::DmaMemory;
use crate::memory::{Memory, Piece};
use crate::shard::event::Conn;

/// Pieces in one system call. Replies of a step are few; Linux takes up to 1,024.
const PIECES_PER_SEND: usize = 64;

/// Where the next bytes of a connection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    Paused,
    /// Into the buffer that all connections of the shard share.
    Shared,
    /// Into this range, once.
    Target(Piece),
}

/// One piece that is not wholly with the kernel yet.
#[derive(Debug)]
struct Outgoing {
    piece: Piece,
    /// The last piece of its `Send`.
    last: bool,
}

/// What happened to a connection's queue.
#[derive(Debug, PartialEq, Eq)]
pub enum Flushed {
    Empty,
    /// The kernel takes no more for now.
    Blocked,
    /// The peer is gone.
    Broken,
}

#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    pub reading: Reading,
    /// Of the connection's task, while it waits.
    pub waker: Option<Waker>,
    pub closing: Closing,
    #[cfg(feature = "delays")]
    pub rest: super::delays::Rest,
    /// To another broker, by this one.
    #[cfg(feature = "delays")]
    pub is_dialed: bool,
    queue: VecDeque<Outgoing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    No,
    AfterSends,
    Now,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            reading: Reading::Paused,
            waker: None,
            closing: Closing::No,
            #[cfg(feature = "delays")]
            rest: super::delays::Rest::default(),
            #[cfg(feature = "delays")]
            is_dialed: false,
            queue: VecDeque::new(),
        }
    }

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Queues one send. Its references are this queue's from now on.
    pub fn enqueue(&mut self, pieces: &[Piece], memory: &mut DmaMemory) {
        for (index, piece) in pieces.iter().enumerate() {
            memory.lend(piece.slot);
            self.queue.push_back(Outgoing { piece: *piece, last: index + 1 == pieces.len() });
        }
    }

    pub fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The rest of the oldest piece.
    pub fn front<'a>(&self, memory: &'a DmaMemory) -> Option<&'a [u8]> {
        self.queue.front().map(|outgoing| memory.piece(outgoing.piece))
    }

    /// Hands the kernel what it takes without waiting, and counts the sends that are complete.
    pub fn flush(&mut self, memory: &mut DmaMemory, sent: &mut u32, calls: &mut u64) -> Flushed {
        while !self.queue.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_SEND];
            let mut count = 0;
            let mut total = 0;
            for (slice, outgoing) in slices.iter_mut().zip(&self.queue) {
                let bytes = memory.piece(outgoing.piece);
                *slice = IoSlice::new(bytes);
                total += bytes.len();
                count += 1;
            }
            *calls += 1;
            // SAFETY: the stream owns this descriptor and lives as long as `self`.
            let descriptor = unsafe { BorrowedFd::borrow_raw(self.stream.as_raw_fd()) };
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let socket = SockRef::from(&descriptor);
            let sent_now = match &slices[..count] {
                // Most sends are one piece; the kernel need not copy a list for it.
                [only] => socket.send_with_flags(only, flags),
                several => socket.send_vectored_with_flags(several, flags),
            };
            match sent_now {
                Ok(taken) => {
                    self.advance(taken, memory, sent);
                    if taken < total {
                        return Flushed::Blocked;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Flushed::Broken,
            }
        }
        Flushed::Empty
    }

    /// Takes `taken` bytes off the queue's head.
    pub fn advance(&mut self, mut taken: usize, memory: &mut DmaMemory, sent: &mut u32) {
        while let Some(outgoing) = self.queue.front_mut() {
            let len = outgoing.piece.len as usize;
            if taken < len {
                outgoing.piece.start += taken as u32;
                outgoing.piece.len -= taken as u32;
                return;
            }
            taken -= len;
            let outgoing = self.queue.pop_front().expect("it was there");
            memory.give_back(outgoing.piece.slot);
            memory.release(outgoing.piece.slot);
            *sent += u32::from(outgoing.last);
        }
        assert_eq!(taken, 0, "the kernel took more than it was given");
    }

    /// Gives back what will not be sent any more.
    pub fn drop_queue(&mut self, memory: &mut DmaMemory) {
        for outgoing in self.queue.drain(..) {
            memory.give_back(outgoing.piece.slot);
            memory.release(outgoing.piece.slot);
        }
    }
}

/// The connections by index. A place is reused with another generation.
#[derive(Debug, Default)]
pub struct Connections {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    connection: Option<Connection>,
}

impl Connections {
    pub fn insert(&mut self, connection: Connection) -> Conn {
        match self.free.pop() {
            Some(index) => {
                let place = &mut self.places[index as usize];
                place.connection = Some(connection);
                Conn { index, generation: place.generation }
            }
            None => {
                let index = u32::try_from(self.places.len()).expect("few connections");
                self.places.push(Place { generation: 0, connection: Some(connection) });
                Conn { index, generation: 0 }
            }
        }
    }

    /// The connection, unless it is gone: effects may name one that has just closed.
    pub fn get(&mut self, conn: Conn) -> Option<&mut Connection> {
        let place = self.places.get_mut(conn.index as usize)?;
        if place.generation != conn.generation {
            return None;
        }
        place.connection.as_mut()
    }

    pub fn remove(&mut self, conn: Conn) -> Option<Connection> {
        let place = self.places.get_mut(conn.index as usize)?;
        if place.generation != conn.generation {
            return None;
        }
        let connection = place.connection.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(conn.index);
        Some(connection)
    }

    pub fn drain(&mut self) -> impl Iterator<Item = Connection> {
        self.places.iter_mut().filter_map(|place| place.connection.take())
    }
}
