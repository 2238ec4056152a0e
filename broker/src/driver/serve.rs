//! Serving one connection: what its task does at each poll, and how it ends.

use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use crate::driver::conn::{Closing, Flushed, Reading};
use crate::driver::core::{Inner, Life, keep_waker};
#[cfg(not(feature = "delays"))]
use crate::limits::RECEIVE_BYTES;
use crate::memory::{Memory, Piece};
use crate::shard::event::{Conn, Event};

/// 4 x 64 KiB is about 0.1 ms of copying: a neighbour waits no longer for one connection.
const FULL_READS_MAX: u32 = 4;

impl Inner {
    /// Sends at once what the kernel takes, and leaves the rest to the connection's task.
    pub(super) fn send(&mut self, conn: Conn, pieces: &[Piece]) {
        let Some(connection) = self.connections.get(conn) else {
            for piece in pieces {
                self.memory.release(piece.slot);
            }
            return;
        };
        let waits = connection.has_queue();
        connection.enqueue(pieces, &mut self.memory);
        if waits {
            // Its task is waiting for room already.
            return;
        }
        match self.flush(conn) {
            Flushed::Empty => {}
            // The task waits for room, or finds the peer gone.
            Flushed::Blocked | Flushed::Broken => {
                if let Some(connection) = self.connections.get(conn) {
                    connection.wake();
                }
            }
        }
    }

    fn flush(&mut self, conn: Conn) -> Flushed {
        let Some(connection) = self.connections.get(conn) else { return Flushed::Empty };
        let mut sent = 0;
        let flushed = connection.flush(&mut self.memory, &mut sent, &mut self.counters.send_calls);
        for _ in 0..sent {
            self.pending.push_back(Event::Sent { conn });
        }
        flushed
    }

    /// Delivers what a flush outside of a step has completed.
    pub(super) fn deliver_pending(&mut self) {
        if let Some(event) = self.pending.pop_front() {
            let rest = std::mem::take(&mut self.pending);
            self.deliver(event);
            for event in rest {
                self.deliver(event);
            }
        }
    }

    /// One look at a connection: send what waits, close if asked, read if wanted.
    pub(super) fn poll_connection(&mut self, conn: Conn, cx: &mut Context<'_>) -> Poll<Burst> {
        // Full reads in a row, after which the neighbours have their turn.
        let mut full_reads = 0;
        loop {
            if self.life == Life::Dead {
                return Poll::Ready(Burst::Over);
            }
            let Some(connection) = self.connections.get(conn) else {
                return Poll::Ready(Burst::Over);
            };
            if connection.has_queue() && connection.closing != Closing::Now {
                match self.flush(conn) {
                    Flushed::Empty => {}
                    Flushed::Blocked => {
                        self.counters.sends_blocked += 1;
                        let connection = self.connections.get(conn).expect("not closed by a flush");
                        let mut sent = 0;
                        if let Some(bytes) = connection.front(&self.memory) {
                            // Tries once more, and else waits for room.
                            let polled = Pin::new(&mut connection.stream).poll_write(cx, bytes);
                            match polled {
                                Poll::Ready(Ok(taken)) => {
                                    connection.advance(taken, &mut self.memory, &mut sent);
                                    for _ in 0..sent {
                                        self.pending.push_back(Event::Sent { conn });
                                    }
                                    self.deliver_pending();
                                    continue;
                                }
                                Poll::Ready(Err(_)) => return self.closed(conn),
                                Poll::Pending => {}
                            }
                        }
                    }
                    Flushed::Broken => return self.closed(conn),
                }
                self.deliver_pending();
            }
            let Some(connection) = self.connections.get(conn) else {
                return Poll::Ready(Burst::Over);
            };
            match connection.closing {
                Closing::Now => return self.closed(conn),
                Closing::AfterSends if !connection.has_queue() => {
                    return self.closed_politely(conn);
                }
                _ => {}
            }
            #[cfg(feature = "delays")]
            if matches!(connection.reading, Reading::Target(_))
                && connection.rest.poll(cx).is_pending()
            {
                keep_waker(&mut connection.waker, cx);
                return Poll::Pending;
            }
            let (slot, range) = match connection.reading {
                Reading::Paused => {
                    keep_waker(&mut connection.waker, cx);
                    return Poll::Pending;
                }
                #[cfg(feature = "delays")]
                Reading::Shared => (self.receive, 0..super::delays::first_bytes()),
                #[cfg(not(feature = "delays"))]
                Reading::Shared => (self.receive, 0..RECEIVE_BYTES),
                Reading::Target(piece) => (piece.slot, piece.range()),
            };
            let start = range.start;
            let target = &mut self.memory.bytes_mut(slot)[range];
            let room = target.len();
            match Pin::new(&mut connection.stream).poll_read(cx, target) {
                Poll::Pending => {
                    keep_waker(&mut connection.waker, cx);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(0) | Err(_)) => return self.closed(conn),
                Poll::Ready(Ok(count)) => {
                    if matches!(connection.reading, Reading::Target(_)) {
                        connection.reading = Reading::Paused;
                    }
                    self.counters.receives += 1;
                    self.deliver(Event::Received { conn, piece: Piece::new(slot, start, count) });
                    if count == room {
                        full_reads += 1;
                        if full_reads >= FULL_READS_MAX {
                            return Poll::Ready(Burst::More);
                        }
                    }
                }
            }
        }
    }

    /// The end of a connection, whoever began it.
    fn closed(&mut self, conn: Conn) -> Poll<Burst> {
        if let Some(mut connection) = self.connections.remove(conn) {
            connection.drop_queue(&mut self.memory);
            self.deliver_pending();
            self.deliver(Event::Closed { conn });
        }
        Poll::Ready(Burst::Over)
    }

    /// The end of a connection that was told something last.
    fn closed_politely(&mut self, conn: Conn) -> Poll<Burst> {
        let connection = self.connections.remove(conn);
        self.deliver_pending();
        self.deliver(Event::Closed { conn });
        Poll::Ready(connection.map_or(Burst::Over, |gone| Burst::Linger(gone.stream)))
    }
}

/// Why a connection's poll came back.
pub(super) enum Burst {
    /// There is more to read, but others wait.
    More,
    /// The connection is gone.
    Over,
    /// The connection is gone for the shard, but its last words may still be on their way.
    Linger(TcpStream),
}

/// How long, and for how many bytes, a closed connection is listened to.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Closes a connection so that the peer gets what was sent: closing at once with bytes unread
/// would reset it, and a reset overtakes the last reply.
pub(super) async fn linger(mut stream: TcpStream) {
    if stream.shutdown(Shutdown::Write).await.is_err() {
        return;
    }
    let mut scratch = [0; 4096];
    let mut heard = 0;
    let mut timer = glommio::timer::Timer::new(LINGER_TIME);
    poll_fn(|cx| {
        while heard < LINGER_BYTES {
            match Pin::new(&mut stream).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => heard += count,
                Poll::Pending => return Pin::new(&mut timer).poll(cx).map(|_| ()),
            }
        }
        Poll::Ready(())
    })
    .await;
}
