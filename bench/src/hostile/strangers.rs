//! Threads that connect, say what they should not, listen until they are closed, and connect again.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use corelog_protocol::ids::ShardId;
use corelog_protocol::preamble::Preamble;

use super::Settings;
use super::crowd;
use super::frames::{Maker, Wrong};
use crate::load::wire;
use crate::os;

const THREADS: u64 = 4;
/// Frames of one connection, at most.
const FRAMES_MAX: u64 = 24;
/// The tenth that counts against a connection closes it: the ones behind would not be looked at.
const COUNTED_MAX: u32 = 9;
/// A connection that is not closed by then never will be.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was sent, and what became of it.
#[derive(Clone, Default, Debug)]
pub struct Tally {
    pub frames: u64,
    counts: [u64; Wrong::ALL.len()],
    pub connections: u64,
    /// Connections that the broker has not closed, though it should have.
    pub left_open: u64,
    pub seconds: f64,
}

impl Tally {
    pub fn by_kind(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Wrong::ALL.into_iter().map(|wrong| (wrong.text(), self.counts[wrong as usize]))
    }

    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.connections += other.connections;
        self.left_open += other.left_open;
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
    }
}

/// Sends all frames. The threads have the lowest priority: strangers would not sit on the broker's
/// machine, so they shall not take its processors either.
pub fn run(address: SocketAddr, settings: &Settings) -> io::Result<Tally> {
    let start = Instant::now();
    let mut all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| scope.spawn(move || stranger(address, settings, number, start)))
            .collect();
        let mut all = Tally::default();
        for thread in threads {
            let tally = thread.join().unwrap_or_else(|_| Err(io::Error::other("a panic")))?;
            all.add(&tally);
        }
        io::Result::Ok(all)
    })?;
    all.seconds = start.elapsed().as_secs_f64();
    Ok(all)
}

fn stranger(
    address: SocketAddr,
    settings: &Settings,
    number: u64,
    start: Instant,
) -> io::Result<Tally> {
    os::lowest_priority()?;
    let mut maker = Maker::new(settings.seed.wrapping_add(number));
    let frames = settings.frames.div_ceil(THREADS);
    let rate = settings.frames_per_second / THREADS as f64;
    let mut tally = Tally::default();
    while tally.frames < frames {
        let due = start + Duration::from_secs_f64(tally.frames as f64 / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let bytes = conversation(&mut maker, frames - tally.frames, &mut tally);
        // Many addresses, as strangers have.
        let source = crowd::source((number as usize) << 8 | (tally.connections as usize & 0xff));
        let mut stream = crowd::connect(source, address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        tally.connections += 1;
        // It may be closed before all is sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answers = [0; 4096];
        loop {
            match stream.read(&mut answers) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tally.left_open += 1;
                    break;
                }
                Err(_) => break,
            }
        }
    }
    Ok(tally)
}

/// The bytes of one connection. All of its frames but the last leave the stream in its place, so the broker has
/// to look at each of them. A quarter of the connections never say hello; there the first frame is the last.
fn conversation(maker: &mut Maker, frames_max: u64, tally: &mut Tally) -> Vec<u8> {
    let says_hello = maker.below(4) > 0;
    let mut bytes = match says_hello {
        true => wire::opening(ShardId::ANY),
        false => Preamble { shard: ShardId::ANY }.encode().to_vec(),
    };
    let count = if says_hello { (1 + maker.below(FRAMES_MAX)).min(frames_max) } else { 1 };
    let mut counted = 0;
    for at in 0..count {
        let is_last = at + 1 == count;
        let (wrong, frame) = maker.next(!is_last && counted < COUNTED_MAX);
        counted += u32::from(wrong.is_counted());
        bytes.extend_from_slice(&frame);
        tally.frames += 1;
        tally.counts[wrong as usize] += 1;
        if wrong.ends_the_stream() {
            break;
        }
    }
    bytes
}
