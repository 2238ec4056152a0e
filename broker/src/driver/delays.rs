//! Delays that are put into a stage on purpose, so that a measurement can be shown to find them. Exists with the feature
//! `delays` only, which no release has.
//!
//! `CORELOG_DELAYS=flush=1000,write=50`: so many microseconds more for each. `append`, `write` and `flush` are here at the
//! orders; `socket` at the connections: of each frame the header is read first, and the rest so much later; `quorum` at the
//! links to other brokers: all that a broker says to another leaves so much later, entries as well as acknowledgments. `queue`,
//! `replicate` and `reply` are the shard's own (`shard/delays.rs`). None of them keeps a core from other work, but for the short ones
//! that are spun.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use corelog_protocol::frame::FRAME_HEADER_BYTES;
use glommio::timer::Timer;

use crate::driver::core::{Core, Inner, Life, keep_waker};
use crate::limits::RECEIVE_BYTES;
use crate::memory::Piece;
use crate::shard::delays::Delays;
use crate::shard::event::Conn;
use crate::time::Nanos;

/// By its name in the stage times of an acknowledgment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the first byte of a frame to its last.
    Socket,
    Queue,
    /// Until the commit is closed.
    Append,
    Write,
    Flush,
    Replicate,
    Quorum,
    Reply,
}

const STAGES: [(Stage, &str); 8] = [
    (Stage::Socket, "socket"),
    (Stage::Queue, "queue"),
    (Stage::Append, "append"),
    (Stage::Write, "write"),
    (Stage::Flush, "flush"),
    (Stage::Replicate, "replicate"),
    (Stage::Quorum, "quorum"),
    (Stage::Reply, "reply"),
];

/// Shorter ones are spun: a timer would add as much again.
const SPUN_MAX: Duration = Duration::from_micros(200);

/// Waits as long as the environment says.
pub async fn at(stage: Stage) {
    let Some(delay) = delay_of(stage) else { return };
    if delay > SPUN_MAX {
        return glommio::timer::sleep(delay).await;
    }
    let begin = Instant::now();
    while begin.elapsed() < delay {
        std::hint::spin_loop();
    }
}

/// Those of a shard.
pub fn of_shard() -> Delays {
    let nanos = |stage| Nanos(delay_of(stage).map_or(0, |delay| delay.as_nanos() as u64));
    Delays {
        queue: nanos(Stage::Queue),
        replicate: nanos(Stage::Replicate),
        reply: nanos(Stage::Reply),
    }
}

/// How much is read of a connection of which nothing is there yet.
pub fn first_bytes() -> usize {
    if delay_of(Stage::Socket).is_some() { FRAME_HEADER_BYTES } else { RECEIVE_BYTES }
}

/// The wait of one connection before the rest of a frame is read.
#[derive(Debug, Default)]
pub struct Rest(Option<Timer>);

impl Rest {
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(delay) = delay_of(Stage::Socket) else { return Poll::Ready(()) };
        let timer = self.0.get_or_insert_with(|| Timer::new(delay));
        match Pin::new(timer).poll(cx) {
            Poll::Ready(_) => {
                self.0 = None;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// What was said to other brokers and has not left yet.
#[derive(Debug, Default)]
pub struct HeldSends {
    /// All wait for the same time, so they leave in this order.
    queue: VecDeque<(Instant, Conn, Vec<Piece>)>,
    pub waker: Option<Waker>,
}

impl Inner {
    /// True if these pieces, and the references that come with them, are held for now.
    pub(super) fn hold_send(&mut self, conn: Conn, pieces: &[Piece]) -> bool {
        let Some(delay) = delay_of(Stage::Quorum) else { return false };
        if !self.connections.get(conn).is_some_and(|connection| connection.is_dialed) {
            return false;
        }
        self.held_sends.queue.push_back((Instant::now() + delay, conn, pieces.to_vec()));
        if let Some(waker) = self.held_sends.waker.take() {
            waker.wake();
        }
        true
    }

    fn send_held(&mut self) {
        let now = Instant::now();
        while let Some((_, conn, pieces)) =
            self.held_sends.queue.pop_front_if(|(due, ..)| *due <= now)
        {
            // If the connection is gone, this gives the references back.
            self.send(conn, &pieces);
        }
        self.deliver_pending();
    }
}

/// Lets out what is held, until the shard is dead.
pub async fn send_loop(core: Rc<Core>) {
    loop {
        let next = poll_fn(|cx| {
            core.with(|inner| {
                if inner.life == Life::Dead {
                    return Poll::Ready(None);
                }
                if let Some((due, ..)) = inner.held_sends.queue.front() {
                    return Poll::Ready(Some(*due));
                }
                keep_waker(&mut inner.held_sends.waker, cx);
                Poll::Pending
            })
        });
        let Some(due) = next.await else { return };
        glommio::timer::sleep(due.saturating_duration_since(Instant::now())).await;
        core.with(Inner::send_held);
    }
}

fn delay_of(stage: Stage) -> Option<Duration> {
    static DELAYS: OnceLock<Vec<(Stage, Duration)>> = OnceLock::new();
    let delays = DELAYS.get_or_init(|| {
        let text = std::env::var("CORELOG_DELAYS").unwrap_or_default();
        parse(&text).unwrap_or_else(|wrong| panic!("CORELOG_DELAYS: {wrong}"))
    });
    delays.iter().find(|(known, _)| *known == stage).map(|(_, delay)| *delay)
}

/// Without those of 0.
fn parse(text: &str) -> Result<Vec<(Stage, Duration)>, String> {
    let mut delays = Vec::new();
    for entry in text.split(',').filter(|entry| !entry.trim().is_empty()) {
        let wrong = || format!("`{entry}` is no stage with its microseconds, such as flush=1000");
        let (name, micros) = entry.split_once('=').ok_or_else(wrong)?;
        let (stage, _) =
            STAGES.iter().find(|(_, known)| *known == name.trim()).ok_or_else(wrong)?;
        let delay = Duration::from_micros(micros.trim().parse().map_err(|_| wrong())?);
        if !delay.is_zero() {
            delays.push((*stage, delay));
        }
    }
    Ok(delays)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_own_delay() {
        let (ms, short) = (Duration::from_millis(1), Duration::from_micros(50));
        let expected = vec![(Stage::Flush, ms), (Stage::Write, short)];
        assert_eq!(parse("flush=1000, write=50,queue=0"), Ok(expected));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_stage_is_named() {
        for wrong in ["flsh=1000", "flush", "flush=soon"] {
            assert!(parse(wrong).unwrap_err().contains(wrong));
        }
    }
}
