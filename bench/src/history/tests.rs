//! Each anomaly, put into a history that is sound without it.

use super::*;

const P: Partition = (0, 0);
const Q: Partition = (0, 1);
const LEVELS: [Durability; 2] = [Durability::QuorumDurable, Durability::LeaderMemory];

/// Two producers of topic 0, the first at the highest level, the second in the leader's memory. Each has sent four
/// records to partition 0, in batches of two: offsets 0 and 1, 2 and 3 are the first one's, 4 to 7 the second one's.
struct Sound {
    history: History,
    last: Reading,
    consumer: Reading,
    disks: [Reading; 3],
}

fn batch(base: u64, at: u64, producer: u32, numbers: std::ops::Range<u64>) -> SeenBatch {
    let records = numbers.map(|number| Some(Identity { producer, number })).collect();
    SeenBatch { base, at, records }
}

impl Sound {
    fn new() -> Self {
        let mut history = History::new(1);
        let mut readings =
            [Reader::Last, Reader::Consumer(1), Reader::Disk(1), Reader::Disk(2), Reader::Disk(3)]
                .map(Reading::new);
        for (producer, level) in (0..).zip(LEVELS) {
            history.add_producer(0, None, level);
            for number in 0..4 {
                let (sent, offset) = (
                    1000 * u64::from(producer) + 100 * (number / 2),
                    4 * u64::from(producer) + number,
                );
                let identity = history.on_send(producer, sent + 1);
                let reply = Reply::Acknowledged { partition: 0, offset: Some(offset) };
                history.on_reply(identity, sent + 50, reply);
                if number % 2 == 1 {
                    for reading in &mut readings {
                        let at = if reading.reader == Reader::Consumer(1) {
                            sent + 60
                        } else {
                            u64::MAX
                        };
                        reading.push(P, batch(offset - 1, at, producer, number - 1..number + 1));
                    }
                }
            }
        }
        let [mut last, consumer, one, two, three] = readings;
        last.ends = BTreeMap::from([(P, 8), (Q, 0)]);
        Self { history, last, consumer, disks: [one, two, three] }
    }

    fn verdict(self) -> Verdict {
        let Self { mut history, last, consumer, disks } = self;
        for reading in [last, consumer].into_iter().chain(disks) {
            history.add_reading(reading);
        }
        history.check(&[P, Q])
    }

    fn names(self) -> Vec<&'static str> {
        let verdict = self.verdict();
        assert!(!verdict.is_clean());
        assert!(verdict.unknown.is_empty(), "{:?}", verdict.unknown);
        verdict.found.into_keys().collect()
    }

    /// Everybody who reads reads this instead.
    fn everywhere(mut self, change: impl Fn(&mut Vec<SeenBatch>)) -> Self {
        let readings = [&mut self.last, &mut self.consumer].into_iter().chain(&mut self.disks);
        readings.for_each(|reading| change(reading.partitions.entry(P).or_default()));
        self.last.ends.insert(P, self.last.next_offset(P));
        self
    }
}

fn of(producer: u32, number: u64) -> Identity {
    Identity { producer, number }
}

#[test]
fn a_sound_history_is_clean() {
    let verdict = Sound::new().verdict();
    assert_eq!((&verdict.anomalies, &verdict.unknown), (&vec![], &vec![]));
    assert!(verdict.is_clean());
    assert_eq!((verdict.held, verdict.consumed, verdict.on_disks, verdict.behind), (8, 8, 24, 0));
    let tally = verdict.tally(Durability::QuorumDurable);
    assert_eq!((tally.sent, tally.acknowledged, tally.open), (4, 4, 0));
}

#[test]
fn an_acknowledged_record_that_is_gone_is_lost() {
    let sound = Sound::new().everywhere(|batches| {
        batches.remove(1);
        batches.iter_mut().skip(1).for_each(|batch| batch.base -= 2);
    });
    // The second producer's were moved to where the first one's should be.
    assert_eq!(sound.names(), ["lost", "misplaced"]);
}

#[test]
fn what_only_a_leader_had_may_be_gone() {
    let verdict = Sound::new().everywhere(|batches| batches.truncate(3)).verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.anomalies);
    assert_eq!(verdict.tally(Durability::LeaderMemory).gone, 2);
}

#[test]
fn planned_operations_lose_nothing_at_any_level_and_disturb_nobody() {
    let mut sound = Sound::new();
    sound.history.expect_calm(0..1050);
    assert!(sound.verdict().is_clean());
    // Two of these were sent in that time, two after it.
    let mut sound = Sound::new();
    sound.history.expect_calm(0..1050);
    let sound = sound.everywhere(|batches| batches.truncate(2));
    let verdict = sound.verdict();
    assert_eq!(verdict.found, BTreeMap::from([("dropped", 2)]));
    let mut sound = Sound::new();
    sound.history.expect_calm(0..1050);
    for number in [1, 3] {
        sound.history.on_reply(of(1, number - 1), 2000, Reply::Unknown);
        sound.history.on_reply(of(1, number), 2000, Reply::Unknown);
    }
    assert_eq!(sound.verdict().found, BTreeMap::from([("disturbed", 2)]));
}

#[test]
fn a_record_that_is_there_twice_is_a_duplicate() {
    let sound = Sound::new().everywhere(|batches| batches.push(batch(8, u64::MAX, 0, 0..1)));
    assert_eq!(sound.names(), ["duplicate"]);
}

#[test]
fn a_record_behind_a_later_one_of_its_producer_is_reordered() {
    let mut sound = Sound::new();
    for number in 0..4 {
        // Nobody was told where they are.
        sound.history.on_reply(of(1, number), 5000, Reply::Unknown);
    }
    let sound = sound.everywhere(|batches| {
        batches[2].records = vec![Some(of(1, 2)), Some(of(1, 3))];
        batches[3].records = vec![Some(of(1, 0)), Some(of(1, 1))];
        batches[2].at = u64::MAX;
    });
    assert_eq!(sound.names(), ["reordered"]);
}

#[test]
fn a_record_sent_after_another_was_acknowledged_comes_behind_it() {
    let mut sound = Sound::new();
    // Of two producers, so that only the times can tell.
    sound.history.producers[1].sends[3].at = 9000;
    sound.history.producers[1].sends[3].reply =
        Some((9001, Reply::Acknowledged { partition: 0, offset: Some(7) }));
    let late = sound.history.add_producer(0, None, Durability::QuorumDurable);
    let identity = sound.history.on_send(late, 2000);
    sound.history.on_reply(identity, 2050, Reply::Acknowledged { partition: 0, offset: Some(8) });
    let sound = sound.everywhere(|batches| {
        batches[3].at = u64::MAX;
        batches.push(batch(8, u64::MAX, 2, 0..1));
    });
    assert_eq!(sound.names(), ["overtook"]);
}

#[test]
fn what_nobody_sent_is_a_phantom() {
    for seen in [None, Some(of(0, 4)), Some(of(7, 0))] {
        let extra = SeenBatch { base: 8, at: u64::MAX, records: vec![seen] };
        let sound = Sound::new().everywhere(|batches| batches.push(extra.clone()));
        assert_eq!(sound.names(), ["phantom"], "{seen:?}");
    }
}

#[test]
fn what_is_seen_before_it_is_sent_is_a_phantom() {
    let mut sound = Sound::new();
    sound.consumer.partitions.get_mut(&P).expect("read")[3].at = 1050;
    assert_eq!(sound.names(), ["phantom"]);
}

#[test]
fn what_was_refused_must_not_be_there() {
    let mut sound = Sound::new();
    for number in 0..2 {
        sound.history.on_reply(of(1, number), 1050, Reply::Refused);
    }
    assert_eq!(sound.names(), ["refused, yet there"]);
}

#[test]
fn what_may_have_happened_may_be_there_and_may_not() {
    let mut sound = Sound::new();
    for number in 0..4 {
        sound.history.on_reply(of(0, number), 50, Reply::Unknown);
    }
    assert!(sound.verdict().is_clean());
    let mut sound = Sound::new();
    for number in 2..4 {
        sound.history.on_reply(of(1, number), 1150, Reply::Unknown);
    }
    assert!(sound.everywhere(|batches| batches.truncate(3)).verdict().is_clean());
}

#[test]
fn an_acknowledgment_names_the_right_offset() {
    let mut sound = Sound::new();
    let reply = Reply::Acknowledged { partition: 0, offset: Some(6) };
    sound.history.on_reply(of(1, 3), 1150, reply);
    assert_eq!(sound.names(), ["misplaced"]);
}

#[test]
fn an_offset_is_acknowledged_once() {
    let mut sound = Sound::new();
    let identity = sound.history.on_send(0, 3000);
    sound.history.on_reply(identity, 3001, Reply::Acknowledged { partition: 0, offset: Some(3) });
    assert_eq!(sound.names(), ["lost", "offset given twice"]);
}

#[test]
fn records_of_a_batch_have_one_fate() {
    let mut sound = Sound::new();
    sound.history.on_reply(of(1, 1), 1050, Reply::Unknown);
    assert_eq!(sound.names(), ["split batch"]);
}

#[test]
fn a_batch_that_a_disk_has_in_part_is_split() {
    let mut sound = Sound::new();
    sound.disks[1].partitions.get_mut(&P).expect("read")[3].records.pop();
    assert_eq!(sound.names(), ["split batch"]);
}

#[test]
fn offsets_without_a_batch_are_a_gap() {
    let mut sound = Sound::new();
    sound.consumer.partitions.get_mut(&P).expect("read").remove(1);
    assert_eq!(sound.names(), ["gap"]);
}

#[test]
fn what_a_consumer_saw_and_is_gone_has_vanished() {
    let mut sound = Sound::new();
    for number in 2..4 {
        sound.history.on_reply(of(1, number), 1150, Reply::Unknown);
    }
    sound.last.partitions.get_mut(&P).expect("read").pop();
    sound.last.ends.insert(P, 6);
    assert_eq!(sound.names(), ["vanished"], "disks may reach further");
}

#[test]
fn a_replica_with_another_record_has_diverged() {
    let mut sound = Sound::new();
    sound.disks[2].partitions.get_mut(&P).expect("read")[2].records.swap(0, 1);
    assert_eq!(sound.names(), ["divergence"]);
}

#[test]
fn a_replica_may_be_behind_but_two_must_have_what_a_quorum_acknowledged() {
    let mut sound = Sound::new();
    sound.disks[0].partitions.get_mut(&P).expect("read").truncate(1);
    let verdict = sound.verdict();
    assert!(verdict.is_clean());
    assert_eq!(verdict.behind, 6);
    let mut sound = Sound::new();
    for disk in &mut sound.disks[..2] {
        disk.partitions.get_mut(&P).expect("read").truncate(1);
    }
    assert_eq!(sound.names(), ["too few copies"]);
}

#[test]
fn a_history_that_was_not_read_to_its_end_is_unknown_and_loses_nothing() {
    for ends in [BTreeMap::from([(P, 9), (Q, 0)]), BTreeMap::from([(P, 8)])] {
        let mut sound = Sound::new();
        sound.last.ends = ends;
        sound.last.partitions.get_mut(&P).expect("read").truncate(1);
        let verdict = sound.verdict();
        assert!(!verdict.unknown.is_empty() && !verdict.is_clean());
        assert_eq!(verdict.found, BTreeMap::new());
    }
    let verdict = History::new(1).check(&[P]);
    assert!(!verdict.unknown.is_empty(), "nobody read anything");
}

#[test]
fn a_record_under_another_key_is_nobodys() {
    let mut history = History::new(1);
    let producer = history.add_producer(0, Some(50), Durability::QuorumDurable);
    let identity = history.on_send(producer, 0);
    let mut value = Vec::new();
    content::fill(1, identity, 40, &mut value);
    let key = content::key(identity, 50);
    assert_eq!(history.recognise(Some(&key), Some(&value)), Some(identity));
    assert_eq!(history.recognise(None, Some(&value)), None);
    assert_eq!(history.recognise(Some(b"other"), Some(&value)), None);
    assert_eq!(history.recognise(Some(&key), None), None);
}

/// The sound history's batches, in lane 1 of epoch `epoch`, from LSN `from` on.
fn log_of(reading: &Reading, epoch: u64, from: u64) -> Log {
    let entry = |(lsn, batch): (u64, &SeenBatch)| {
        (lsn, Entry { epoch, checksum: batch.base as u32, batch: Some((P, batch.clone())) })
    };
    (from..).zip(&reading.partitions[&P]).map(entry).collect()
}

/// A sound history, with these logs of one lane on its disks. They are made of the sound one, of epoch 1.
fn on_disks(logs: impl FnOnce(Log) -> [Log; 3]) -> Verdict {
    let Sound { mut history, last, consumer, disks: [disk, ..] } = Sound::new();
    let logs = logs(log_of(&disk, 1, 0));
    let disk = |(broker, log)| Disk { broker, lanes: BTreeMap::from([(1, log)]) };
    history.add_disks(&(1..).zip(logs).map(disk).collect::<Vec<_>>());
    [last, consumer].into_iter().for_each(|reading| history.add_reading(reading));
    history.check(&[P, Q])
}

/// The log's second half in epoch 2.
fn led_on(mut log: Log) -> Log {
    log.values_mut().skip(2).for_each(|entry| entry.epoch = 2);
    log
}

#[test]
fn the_tail_of_a_deposed_leader_is_no_divergence() {
    let verdict = on_disks(|log| {
        let mut deposed = log.clone();
        // Two batches that nobody else got, where the others have the second producer's.
        deposed.get_mut(&2).expect("there").batch = Some((P, batch(4, u64::MAX, 0, 4..6)));
        deposed.get_mut(&3).expect("there").batch = Some((P, batch(6, u64::MAX, 0, 6..8)));
        [led_on(log.clone()), led_on(log), deposed]
    });
    assert!(verdict.is_clean(), "{:?}", verdict.anomalies);
    assert_eq!((verdict.tails, verdict.behind, verdict.on_disks), (4, 4, 20));
}

#[test]
fn what_lies_in_a_tail_is_no_copy() {
    // The first producer's second batch was acknowledged by a quorum's disks, and only a tail has it beside the leader.
    let verdict = on_disks(|log| {
        let mut trunk = led_on(log.clone());
        trunk.get_mut(&1).expect("there").epoch = 2;
        let behind = trunk.clone().into_iter().take(1).collect();
        [trunk, behind, log]
    });
    assert_eq!(verdict.found.into_keys().collect::<Vec<_>>(), ["too few copies"]);
}

#[test]
fn replicas_that_differ_below_what_is_committed_have_diverged() {
    let verdict = on_disks(|log| {
        let mut other = led_on(log.clone());
        let entry = other.get_mut(&1).expect("there");
        entry.checksum = 77;
        entry.batch = Some((P, batch(2, u64::MAX, 1, 0..2)));
        [led_on(log.clone()), led_on(log), other]
    });
    assert_eq!(verdict.found.into_keys().collect::<Vec<_>>(), ["divergence", "forked"]);
    // Other bytes around the same records.
    let verdict = on_disks(|log| {
        let mut other = led_on(log.clone());
        other.get_mut(&1).expect("there").checksum = 77;
        [led_on(log.clone()), led_on(log), other]
    });
    assert_eq!(verdict.found.into_keys().collect::<Vec<_>>(), ["forked"]);
}
