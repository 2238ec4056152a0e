//! What was sent, what was promised for it, and what came back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use super::content::{self, Identity};

/// What an acknowledgment promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// May be lost with a broker.
    Weak,
    /// May not be lost.
    Durable,
}

/// Where a record lies: topic and partition as the run numbers them, and its offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spot {
    pub partition: Partition,
    pub offset: u64,
}

/// Topic (as the run numbers them) and partition of it.
pub type Partition = (u32, u32);

/// Something that must not happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Anomaly {
    /// Acknowledged durable, and not there. Without a spot: the acknowledgment named none.
    Lost { identity: Identity, spot: Option<Spot> },
    /// There twice.
    Duplicate { identity: Identity, first: Spot, second: Spot },
    /// After a later one of the same producer, in the same partition.
    Reordered { identity: Identity, spot: Spot, after: u64 },
    /// Not what any producer of this run sends.
    Corrupt { spot: Spot },
    /// Under another key than it was sent with.
    WrongKey { identity: Identity, spot: Spot },
    /// Elsewhere than its acknowledgment said.
    Misplaced { identity: Identity, told: Spot, found: Spot },
    /// Two acknowledgments name the same place, and neither may be lost.
    SharedSpot { identity: Identity, other: Identity, spot: Spot },
    /// The same key in two partitions of a topic.
    KeySplit { identity: Identity, spot: Spot, other: u32 },
    /// Its producer never sent it.
    Invented { identity: Identity, spot: Spot },
    /// There, though its producer was told that it never will be.
    Ghost { identity: Identity, spot: Spot },
    /// There again, after it had been acknowledged and read, or refused for good, and so forgotten.
    Again { identity: Identity, spot: Spot },
    /// A consumer saw it there, and later it was gone or elsewhere.
    Vanished { identity: Identity, spot: Spot },
    /// The next offset of the partition was expected.
    Gap { spot: Spot, expected: u64 },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// No word yet, or an error that leaves it open.
    Open,
    Acknowledged(Level, Option<Spot>),
    /// A definite failure.
    Refused,
}

struct Sent {
    fate: Fate,
    seen: Option<Spot>,
    /// Where an earlier reading saw it: see [`Ledger::read_again`].
    seen_before: Option<Spot>,
}

#[derive(Default)]
struct Producer {
    topic: u32,
    keys: Option<u64>,
    /// The number of the first record that is remembered.
    base: u64,
    records: VecDeque<Sent>,
}

impl Producer {
    fn sent(&mut self, number: u64) -> Option<&mut Sent> {
        let at = number.checked_sub(self.base)?;
        self.records.get_mut(usize::try_from(at).ok()?)
    }

    fn known(&mut self, number: u64) -> &mut Sent {
        self.sent(number).expect("a record is remembered until it is settled and read")
    }
}

#[derive(Default)]
struct Reader {
    next: u64,
    /// By producer: the number last seen.
    last: BTreeMap<u32, u64>,
}

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub sent: u64,
    pub acknowledged_durable: u64,
    pub acknowledged_weakly: u64,
    pub refused: u64,
    /// Neither acknowledged nor refused.
    pub open: u64,
    /// Of the open ones, those that came back.
    pub open_seen: u64,
    pub seen: u64,
    /// Acknowledged at a level that a hard stop of a broker may lose, and gone.
    pub weak_lost: u64,
    /// The same, by producer.
    pub weak_lost_of: Vec<u64>,
    pub anomalies_found: u64,
    /// The first of them.
    pub anomalies: Vec<Anomaly>,
}

const ANOMALIES_KEPT: usize = 20;

/// Remembers about 80 bytes per record: of all of them, or with [`Ledger::forgetting`] of those that are not yet both
/// settled and read.
pub struct Ledger {
    seed: u64,
    forgets: bool,
    /// Of what was forgotten.
    settled: Verdict,
    producers: Vec<Producer>,
    readers: BTreeMap<Partition, Reader>,
    key_homes: BTreeMap<(u32, [u8; 16]), u32>,
    found: u64,
    anomalies: Vec<Anomaly>,
    seen: u64,
}

impl Ledger {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            forgets: false,
            settled: Verdict::default(),
            producers: Vec::new(),
            readers: BTreeMap::new(),
            key_homes: BTreeMap::new(),
            found: 0,
            anomalies: Vec::new(),
            seen: 0,
        }
    }

    /// For runs of any length that read everything once, while it is written.
    #[must_use]
    pub fn forgetting(mut self) -> Self {
        self.forgets = true;
        self
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A producer of one topic, with so many keys or none.
    pub fn add_producer(&mut self, topic: u32, keys: Option<u64>) -> u32 {
        self.producers.push(Producer { topic, keys, ..Producer::default() });
        (self.producers.len() - 1) as u32
    }

    /// The next record of a producer; it is sent from now on.
    pub fn send(&mut self, producer: u32) -> Identity {
        let of = &mut self.producers[producer as usize];
        of.records.push_back(Sent { fate: Fate::Open, seen: None, seen_before: None });
        Identity { producer, number: of.base + of.records.len() as u64 - 1 }
    }

    pub fn on_ack(&mut self, identity: Identity, level: Level, partition: u32, offset: u64) {
        let producer = &mut self.producers[identity.producer as usize];
        let spot = Spot { partition: (producer.topic, partition), offset };
        producer.known(identity.number).fate = Fate::Acknowledged(level, Some(spot));
        self.forget(identity.producer);
    }

    /// It is acknowledged by a broker that does not tell where it lies.
    pub fn on_ack_somewhere(&mut self, identity: Identity, level: Level) {
        let producer = &mut self.producers[identity.producer as usize];
        producer.known(identity.number).fate = Fate::Acknowledged(level, None);
        self.forget(identity.producer);
    }

    /// A failure. One that is not definite leaves the record's fate open.
    pub fn on_failure(&mut self, identity: Identity, definite: bool) {
        if definite {
            self.producers[identity.producer as usize].known(identity.number).fate = Fate::Refused;
            self.forget(identity.producer);
        }
    }

    /// Judges and forgets what is settled and read, up to the first record that is not.
    fn forget(&mut self, producer: u32) {
        if !self.forgets {
            return;
        }
        let is_over = |sent: &mut Sent| match sent.fate {
            Fate::Open => false,
            Fate::Acknowledged(..) => sent.seen.is_some(),
            Fate::Refused => true,
        };
        let first = self.producers[producer as usize].records.front_mut();
        if !first.is_some_and(is_over) {
            return;
        }
        let mut verdict = std::mem::take(&mut self.settled);
        loop {
            let of = &mut self.producers[producer as usize];
            let Some(sent) = of.records.pop_front_if(is_over) else { break };
            let identity = Identity { producer, number: of.base };
            of.base += 1;
            verdict.sent += 1;
            self.judge(identity, &sent, &mut verdict);
        }
        self.settled = verdict;
    }

    /// From now on everything is read once more, from the beginning: it must be there again.
    pub fn read_again(&mut self) {
        self.readers.clear();
        for sent in self.producers.iter_mut().flat_map(|producer| &mut producer.records) {
            sent.seen_before = sent.seen.take().or(sent.seen_before);
        }
    }

    /// The offset that a consumer of the partition expects next.
    pub fn next_offset(&self, partition: Partition) -> u64 {
        self.readers.get(&partition).map_or(0, |reader| reader.next)
    }

    /// A consumer got a record.
    pub fn on_record(&mut self, spot: Spot, key: Option<&[u8]>, value: Option<&[u8]>) {
        let identity = value.and_then(|value| content::identify(self.seed, value));
        self.on_identified(spot, key, identity);
    }

    /// A consumer got a record, and has found out whose it is: `None` if its bytes are nobody's.
    pub fn on_identified(&mut self, spot: Spot, key: Option<&[u8]>, identity: Option<Identity>) {
        self.seen += 1;
        let reader = self.readers.entry(spot.partition).or_default();
        let expected = std::mem::replace(&mut reader.next, spot.offset + 1);
        let mut after = None;
        if let Some(identity) = identity {
            let last = reader.last.entry(identity.producer);
            let last = last.and_modify(|last| {
                after = Some(*last).filter(|last| *last >= identity.number);
                *last = (*last).max(identity.number);
            });
            last.or_insert(identity.number);
        }
        if expected != spot.offset {
            self.note(Anomaly::Gap { spot, expected });
        }
        let Some(identity) = identity else { return self.note(Anomaly::Corrupt { spot }) };
        if let Some(after) = after {
            self.note(Anomaly::Reordered { identity, spot, after });
        }
        self.check_key(identity, spot, key);
        self.check_place(identity, spot);
    }

    fn check_key(&mut self, identity: Identity, spot: Spot, key: Option<&[u8]>) {
        let Some(producer) = self.producers.get(identity.producer as usize) else { return };
        let expected = producer.keys.map(|keys| content::key(identity, keys));
        if key != expected.as_ref().map(|key| &key[..]) {
            return self.note(Anomaly::WrongKey { identity, spot });
        }
        if let Some(key) = expected {
            let (topic, partition) = spot.partition;
            let home = *self.key_homes.entry((topic, key)).or_insert(partition);
            if home != partition {
                self.note(Anomaly::KeySplit { identity, spot, other: home });
            }
        }
    }

    fn check_place(&mut self, identity: Identity, spot: Spot) {
        let producer = self.producers.get_mut(identity.producer as usize);
        let producer = producer.filter(|producer| producer.topic == spot.partition.0);
        let Some(producer) = producer else {
            return self.note(Anomaly::Invented { identity, spot });
        };
        if identity.number < producer.base {
            return self.note(Anomaly::Again { identity, spot });
        }
        let Some(sent) = producer.sent(identity.number) else {
            return self.note(Anomaly::Invented { identity, spot });
        };
        if let Some(first) = sent.seen {
            return self.note(Anomaly::Duplicate { identity, first, second: spot });
        }
        sent.seen = Some(spot);
        self.forget(identity.producer);
    }

    fn note(&mut self, anomaly: Anomaly) {
        self.found += 1;
        if self.anomalies.len() < ANOMALIES_KEPT {
            self.anomalies.push(anomaly);
        }
    }

    /// Anomalies so far, of those that show while records come in.
    pub fn anomalies_found(&self) -> u64 {
        self.found
    }

    /// Records that came back so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Records that are acknowledged and not yet read.
    pub fn unread(&self) -> u64 {
        let records = self.producers.iter().flat_map(|producer| &producer.records);
        let is_unread =
            |sent: &&Sent| matches!(sent.fate, Fate::Acknowledged(..)) && sent.seen.is_none();
        records.filter(is_unread).count() as u64
    }

    /// Judges the run. All partitions must have been read to their ends.
    pub fn finish(mut self) -> Verdict {
        let mut verdict = Verdict { seen: self.seen, ..std::mem::take(&mut self.settled) };
        let producers = std::mem::take(&mut self.producers);
        verdict.weak_lost_of = vec![0; producers.len()];
        let mut durable_spots: BTreeMap<(Partition, u64), Identity> = BTreeMap::new();
        for (index, producer) in producers.iter().enumerate() {
            for (number, sent) in producer.records.iter().enumerate() {
                let number = producer.base + number as u64;
                let identity = Identity { producer: index as u32, number };
                verdict.sent += 1;
                self.judge(identity, sent, &mut verdict);
                if let Fate::Acknowledged(Level::Durable, Some(spot)) = sent.fate {
                    let place = (spot.partition, spot.offset);
                    if let Some(other) = durable_spots.insert(place, identity) {
                        self.note(Anomaly::SharedSpot { identity, other, spot });
                    }
                }
            }
        }
        verdict.anomalies_found = self.found;
        verdict.anomalies = self.anomalies;
        verdict
    }

    fn judge(&mut self, identity: Identity, sent: &Sent, verdict: &mut Verdict) {
        if let Some(spot) = sent.seen_before.filter(|before| sent.seen != Some(*before)) {
            self.note(Anomaly::Vanished { identity, spot });
        }
        match (sent.fate, sent.seen) {
            (Fate::Open, seen) => {
                verdict.open += 1;
                verdict.open_seen += u64::from(seen.is_some());
            }
            (Fate::Refused, seen) => {
                verdict.refused += 1;
                if let Some(spot) = seen {
                    self.note(Anomaly::Ghost { identity, spot });
                }
            }
            (Fate::Acknowledged(level, told), seen) => {
                match level {
                    Level::Weak => verdict.acknowledged_weakly += 1,
                    Level::Durable => verdict.acknowledged_durable += 1,
                }
                match (level, seen) {
                    (_, Some(found)) => {
                        if let Some(told) = told.filter(|told| *told != found) {
                            self.note(Anomaly::Misplaced { identity, told, found });
                        }
                    }
                    (Level::Weak, None) => {
                        verdict.weak_lost += 1;
                        verdict.weak_lost_of[identity.producer as usize] += 1;
                    }
                    (Level::Durable, None) => self.note(Anomaly::Lost { identity, spot: told }),
                }
            }
        }
    }
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.anomalies_found == 0
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition: (topic, partition), offset } = self;
        write!(f, "topic {topic}, partition {partition}, offset {offset}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} of producer {}", self.number, self.producer)
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { identity, spot: Some(spot) } => {
                write!(f, "lost: {identity}, acknowledged durable at {spot}")
            }
            Self::Lost { identity, spot: None } => write!(f, "lost: {identity}, acknowledged"),
            Self::Duplicate { identity, first, second } => {
                write!(f, "duplicate: {identity}, at {first} and again at {second}")
            }
            Self::Reordered { identity, spot, after } => {
                write!(f, "reordered: {identity} at {spot}, after record {after}")
            }
            Self::Corrupt { spot } => write!(f, "corrupt: what lies at {spot} was never sent"),
            Self::WrongKey { identity, spot } => write!(f, "wrong key: {identity} at {spot}"),
            Self::Misplaced { identity, told, found } => {
                write!(f, "misplaced: {identity}, acknowledged at {told}, found at {found}")
            }
            Self::SharedSpot { identity, other, spot } => {
                write!(f, "offset given twice: {identity} and {other} at {spot}")
            }
            Self::KeySplit { identity, spot, other } => {
                write!(f, "key in two partitions: {identity} at {spot}, earlier in {other}")
            }
            Self::Invented { identity, spot } => write!(f, "never sent: {identity} at {spot}"),
            Self::Ghost { identity, spot } => {
                write!(f, "refused for good, and there: {identity} at {spot}")
            }
            Self::Again { identity, spot } => {
                write!(
                    f,
                    "again: {identity} at {spot}, after it was acknowledged and read, or refused"
                )
            }
            Self::Vanished { identity, spot } => {
                write!(f, "vanished: {identity}, once seen at {spot}")
            }
            Self::Gap { spot, expected } => write!(f, "gap: {spot}, expected {expected}"),
        }
    }
}

#[cfg(test)]
mod tests;
