//! I6 at length: one idempotent producer, the real client engine and the real shard, and a network that loses half of
//! the answers by cutting connections; now and then a part of a request is lost as well, or the broker restarts. Every
//! record must stand exactly once, at the offset that is its number in its partition.
//!
//! Kept small so that a hundred million records take minutes: no history, no fetches; a record's number is its token,
//! and an acknowledgment with any other offset shows a duplicate or a gap at once.

use std::collections::BTreeMap;

use corelog::engine::{Config, Effect, Engine, Event, LinkId, Monotonic, Now};
use corelog::{Durability, Record};
use corelog_protocol::message::{TopicInfo, TopicSettings};
use corelog_protocol::preamble::PREAMBLE_BYTES;

use super::scene::{Client, World};
use super::sweep::{Checked, guarded};
use super::threads::add_up;
use crate::random::Random;
use crate::time::Nanos;

const MILLIS: u64 = 1_000_000;
const TOPIC: &str = "sends";
const PARTITIONS: u32 = 4;
/// Kept of each partition: segments come and go, and what is known of the producer must not go with them.
const KEPT_BYTES: u64 = 256 << 10;
/// Handed over at once.
const BURST: u64 = 2_000;
/// Cuts between two restarts of the broker.
const RESTART_EVERY: u64 = 500;
/// Sizes of values, one per run: batches of a hundred records, of twenty, of two.
const VALUE_BYTES: [usize; 4] = [32, 32, 192, 1_536];

/// What was done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Outcome {
    pub sends: u64,
    pub batches: u64,
    pub acks_given: u64,
    /// Acknowledgments that were sent and did not arrive.
    pub acks_lost: u64,
    /// Connections that ended in the middle of a request.
    pub requests_cut: u64,
    pub restarts: u64,
    /// Batches that came again and were recognised.
    pub recognised: u64,
}

impl Outcome {
    pub fn add(&mut self, other: &Self) {
        self.sends += other.sends;
        self.batches += other.batches;
        self.acks_given += other.acks_given;
        self.acks_lost += other.acks_lost;
        self.requests_cut += other.requests_cut;
        self.restarts += other.restarts;
        self.recognised += other.recognised;
    }
}

/// The broker's end of a connection, and what is left of the preamble, which a driver would take.
#[derive(Clone, Copy)]
struct Link {
    client: Client,
    preamble_left: usize,
}

struct Run {
    world: World,
    engine: Engine<u64>,
    effects: Vec<Effect<u64>>,
    links: BTreeMap<LinkId, Link>,
    random: Random,
    value_bytes: usize,
    /// By partition: records handed over, and acknowledged.
    produced: Vec<u64>,
    acknowledged: Vec<u64>,
    cuts: u64,
    outcome: Outcome,
}

/// Sends so many records on several threads, a producer on each. A line now and then through `say`; the first
/// violation ends it.
pub fn run_all(
    seed: u64,
    sends: u64,
    threads: usize,
    say: &(dyn Fn(&str) + Sync),
) -> Checked<Outcome> {
    /// Records of one run: then another seed, another broker.
    const PART: u64 = 1_000_000;
    let parts = sends.div_ceil(PART);
    let send = |part: u64| {
        let seed = seed + part;
        guarded(&|| format!("seed {seed}"), || run(seed, PART.min(sends - part * PART)))
    };
    add_up(threads, parts, send, Outcome::add, |part, _, total| {
        if (part + 1).is_multiple_of(10) || part + 1 == parts {
            say(&format!("{total:?}"));
        }
    })
}

/// Sends so many records. The error says what was wrong.
pub fn run(seed: u64, sends: u64) -> Checked<Outcome> {
    let mut run = Run::begin(seed);
    while run.outcome.sends < sends {
        run.hand_over(BURST.min(sends - run.outcome.sends));
        run.settle()?;
    }
    run.check_ends()?;
    Ok(run.outcome)
}

impl Run {
    fn begin(seed: u64) -> Self {
        let mut world = World::with(1, |_| {});
        let admin = world.client(0);
        let settings = TopicSettings {
            partitions: PARTITIONS,
            replicas: 0,
            retention_ms: None,
            retention_bytes: Some(KEPT_BYTES),
        };
        world.create_topic_with(admin, TOPIC, settings);
        world.hang_up(admin);
        let mut config = Config::new(vec![std::net::SocketAddr::from(([127, 0, 0, 1], 7420))]);
        config.producer.durability = Durability::QuorumDurable;
        config.producer.batch_bytes_max = 4 << 10;
        config.producer.linger_nanos = MILLIS;
        config.producer.delivery_nanos_max = u64::MAX / 4;
        config.reconnect_nanos_max = 20 * MILLIS;
        Self {
            world,
            engine: Engine::new(config, seed),
            effects: Vec::new(),
            links: BTreeMap::new(),
            random: Random::new(seed ^ 0x10_57ac),
            value_bytes: VALUE_BYTES[seed as usize % VALUE_BYTES.len()],
            produced: vec![0; PARTITIONS as usize],
            acknowledged: vec![0; PARTITIONS as usize],
            cuts: 0,
            outcome: Outcome::default(),
        }
    }

    fn now(&self) -> Now {
        let now = self.world.now;
        Now { monotonic: Monotonic(now.monotonic.0), wall_ms: now.wall.0 }
    }

    fn hand_over(&mut self, count: u64) {
        let now = self.now();
        let mut value = vec![0; self.value_bytes];
        for number in 0..count {
            let partition = (number % u64::from(PARTITIONS)) as usize;
            let token = self.produced[partition];
            value[..8].copy_from_slice(&token.to_le_bytes());
            let mut record = Record::to(TOPIC).value(&value);
            record.partition = Some(partition as u32);
            if self.engine.produce(now, &record, token, &mut self.effects).is_err() {
                // The budget is used up: what is under way comes first.
                return;
            }
            self.produced[partition] += 1;
            self.outcome.sends += 1;
        }
    }

    /// Until everything that was handed over is acknowledged.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..1_000_000 {
            self.carry_out()?;
            self.world.run();
            if self.hear() {
                continue;
            }
            if self.acknowledged == self.produced {
                return Ok(());
            }
            let Some(wake) = self.engine.next_wake() else {
                return Err("the producer waits for nothing".into());
            };
            let now = self.world.now.monotonic.0;
            self.world.pass(Nanos(wake.0.saturating_sub(now)));
            self.engine.on_event(self.now(), Event::Timer, &mut self.effects);
        }
        Err(format!("liveness: {:?} of {:?} are acknowledged", self.acknowledged, self.produced))
    }

    fn carry_out(&mut self) -> Result<(), String> {
        while !self.effects.is_empty() {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Connect { link, .. } => {
                        let client = self.world.connect(0);
                        self.links.insert(link, Link { client, preamble_left: PREAMBLE_BYTES });
                        self.event(Event::Connected { link });
                    }
                    Effect::Send { link, bytes } => self.send(link, &bytes.pieces()),
                    Effect::Close { link } => self.hang_up(link),
                    Effect::Delivered(delivered) => {
                        self.on_delivered(
                            delivered.partition,
                            delivered.base_offset.map(|o| o.0),
                            &delivered.tokens,
                        )?;
                    }
                    Effect::Failed(failed) => {
                        return Err(format!("{:?} failed: {}", failed.tokens, failed.error));
                    }
                    Effect::Flushed { .. }
                    | Effect::Answered { .. }
                    | Effect::Objective(_)
                    | Effect::Readable { .. } => {}
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'_>) {
        self.engine.on_event(self.now(), event, &mut self.effects);
    }

    fn send(&mut self, id: LinkId, pieces: &[&[u8]]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut bytes: Vec<u8> = pieces.concat();
        let preamble = link.preamble_left.min(bytes.len());
        link.preamble_left -= preamble;
        bytes.drain(..preamble);
        let client = link.client;
        let whole = preamble + bytes.len();
        // One in fifty requests is cut.
        let is_cut = bytes.len() > 1_000 && self.random.chance(1, 50);
        if is_cut {
            bytes.truncate(bytes.len() / 2);
        }
        self.world.queue(client, &bytes);
        let sent = (preamble + bytes.len()) as u64;
        self.event(Event::Sent { link: id, bytes: if is_cut { sent } else { whole as u64 } });
        if is_cut {
            self.outcome.requests_cut += 1;
            self.world.run();
            self.lose(id);
        }
    }

    /// What the broker has said: half of it arrives. False if it said nothing.
    fn hear(&mut self) -> bool {
        let mut heard = false;
        for (id, link) in self.links.clone() {
            let inbox = self.world.take_bytes(link.client);
            if inbox.is_empty() {
                continue;
            }
            heard = true;
            // Greetings and places are small, and must get through now and then.
            let acks = count_acks(&inbox);
            self.outcome.acks_given += acks;
            if acks > 0 && self.random.chance(1, 2) {
                self.outcome.acks_lost += acks;
                self.lose(id);
                continue;
            }
            self.event(Event::Received { link: id, bytes: &inbox });
        }
        heard
    }

    /// The connection ends, with all that is under way.
    fn lose(&mut self, id: LinkId) {
        self.hang_up(id);
        self.event(Event::Closed { link: id });
        self.cuts += 1;
        if self.cuts.is_multiple_of(RESTART_EVERY) {
            self.outcome.recognised += self.world.counter(0, "batches_duplicate");
            self.outcome.batches += self.world.counter(0, "batches_in");
            self.outcome.restarts += 1;
            self.world.crash_and_restart(1);
            for link in std::mem::take(&mut self.links).into_keys() {
                self.event(Event::Closed { link });
            }
        }
    }

    fn hang_up(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.world.hang_up(link.client);
        }
    }

    fn on_delivered(
        &mut self,
        partition: u32,
        base: Option<u64>,
        tokens: &[u64],
    ) -> Result<(), String> {
        let at = partition as usize;
        for (offset, &token) in (base.unwrap_or(u64::MAX)..).zip(tokens) {
            if token != offset || token != self.acknowledged[at] {
                return Err(format!(
                    "I6: record {token} of partition {partition} is acknowledged at offset {offset}, after {} others",
                    self.acknowledged[at]
                ));
            }
            self.acknowledged[at] += 1;
        }
        Ok(())
    }

    /// No partition holds more than was sent.
    fn check_ends(&mut self) -> Result<(), String> {
        self.outcome.recognised += self.world.counter(0, "batches_duplicate");
        self.outcome.batches += self.world.counter(0, "batches_in");
        let client = self.world.client(0);
        let topic: TopicInfo = self.world.describe(client, TOPIC);
        for (place, &produced) in topic.places.iter().zip(&self.produced) {
            let end = self.world.committed_end(client, place.partition);
            if end != produced {
                return Err(format!(
                    "I6: {produced} records were sent to {place:?}, it ends at {end}"
                ));
            }
        }
        Ok(())
    }
}

/// Acknowledgments among whole frames.
fn count_acks(mut bytes: &[u8]) -> u64 {
    use corelog_protocol::frame::{FrameHeader, FrameKind};
    let mut acks = 0;
    while let Ok(header) = FrameHeader::decode(bytes, u32::MAX) {
        acks += u64::from(header.kind == FrameKind::ProduceAck);
        bytes = bytes.get(header.frame_bytes()..).unwrap_or_default();
    }
    acks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planted::{self, Bug};

    #[test]
    fn half_of_the_answers_lost_and_every_record_stands_once() {
        let outcome = run(7, 100_000).expect("no duplicate, no gap");
        assert!(outcome.acks_lost * 3 > outcome.acks_given, "{outcome:?}");
        assert!(outcome.recognised > 100 && outcome.requests_cut > 10, "{outcome:?}");
    }

    #[test]
    fn it_sees_duplicates_and_forgotten_producers() {
        for bug in [Bug::DuplicateAppended, Bug::GapAccepted] {
            let told = planted::with(bug, || run(7, 100_000));
            // Nothing here refuses a batch before one that is taken, so no gap can be accepted.
            assert_eq!(told.is_err(), bug == Bug::DuplicateAppended, "{told:?}");
        }
    }
}
