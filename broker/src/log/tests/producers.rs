//! What is remembered of producers is a fold over the log: the same after every way of coming back.

use corelog_protocol::batch::{BatchBuilder, NewRecord};
use corelog_protocol::ids::{Offset, PartitionId, ProducerId};

use super::rig::{Disk, P, Q, Rig, config};
use crate::log::{Claim, LogConfig, Retention, Verdict};

fn batch(partition: PartitionId, producer: u64, sequence: u32, bytes: usize) -> (Claim, Vec<u8>) {
    let mut builder = BatchBuilder::new(1 << 20, 10);
    builder.set_producer(ProducerId(producer), 0, sequence);
    let value = vec![sequence as u8; bytes];
    builder.push(&NewRecord { value: Some(&value), ..NewRecord::default() }).unwrap();
    let bytes = builder.finish().to_vec();
    (Claim::read(partition, &bytes).unwrap(), bytes)
}

/// Appends as a shard does, and waits until it is durable.
fn produce(rig: &mut Rig, partition: PartitionId, producer: u64, sequence: u32, bytes: usize) {
    let (claim, batch) = batch(partition, producer, sequence, bytes);
    assert_eq!(rig.log.judge(&claim, false), Verdict::New, "{claim:?}");
    while rig.append_of(claim, &batch).is_err() {
        rig.run();
    }
    rig.run();
}

fn is_known(rig: &Rig, partition: PartitionId, producer: u64, sequence: u32, bytes: usize) -> bool {
    let (claim, _) = batch(partition, producer, sequence, bytes);
    matches!(rig.log.judge(&claim, false), Verdict::Duplicate(_))
}

fn again(rig: &Rig, config: LogConfig) -> Rig {
    Rig::started(config, rig.disk.after_power_cut(|_, _| false))
}

#[test]
fn a_power_cut_takes_no_more_of_the_memory_than_of_the_log() {
    let mut rig = Rig::fresh();
    for sequence in 0..7 {
        produce(&mut rig, P, 1, sequence, 100);
        produce(&mut rig, Q, 1, sequence, 100);
    }
    let (claim, bytes) = batch(P, 1, 7, 100);
    rig.append_of(claim, &bytes).unwrap();
    let rig = again(&rig, config());
    for partition in [P, Q] {
        assert!((2..7).all(|sequence| is_known(&rig, partition, 1, sequence, 100)));
    }
    assert_eq!(rig.log.judge(&claim, false), Verdict::New, "it was not durable");
    let Verdict::Duplicate(known) = rig.log.judge(&batch(Q, 1, 6, 100).0, false) else { panic!() };
    assert_eq!(known.base_offset, Offset(6));
}

#[test]
fn the_memory_outlives_the_segments_and_any_number_of_lives() {
    let mut config = config();
    config.producers_max = 8;
    let mut rig = Rig::started(config.clone(), Disk::new());
    rig.call(|log, _| {
        log.open_partition(Q, Retention { bytes: Some(20_000), ..Retention::default() });
        log.open_partition(P, Retention { age_ms: Some(100), ..Retention::default() });
    });
    produce(&mut rig, P, 1, 0, 100);
    for sequence in 0..60 {
        produce(&mut rig, Q, 2, sequence, 6_000);
        rig.pass(1_000);
        let next = rig.log.next_lsn();
        rig.log.set_needed_from(next);
    }
    assert!(rig.log.counters().segments_dropped > 1);
    assert!(rig.log.partition(P).unwrap().log_start > Offset(0), "the batch itself is gone");
    for life in 0..3 {
        assert!(is_known(&rig, P, 1, 0, 100), "life {life}");
        assert!((55..60).all(|sequence| is_known(&rig, Q, 2, sequence, 6_000)), "life {life}");
        assert_eq!(rig.log.producer_count(), 2);
        rig = again(&rig, config.clone());
    }
    produce(&mut rig, Q, 2, 60, 10);
}

#[test]
fn an_orderly_stop_forgets_nothing_either() {
    let mut rig = Rig::fresh();
    let mut sequence = 0;
    while rig.log.counters().rolls < 2 {
        produce(&mut rig, P, 1, sequence, 5_000);
        sequence += 1;
    }
    rig.stop();
    let rig = again(&rig, config());
    assert!((sequence - 5..sequence).all(|sequence| is_known(&rig, P, 1, sequence, 5_000)));
}

#[test]
fn where_a_batch_may_be_lost_a_first_one_that_was_sent_before_is_unknown() {
    for is_stopped in [false, true] {
        let mut rig = Rig::fresh();
        produce(&mut rig, P, 1, 0, 100);
        // What comes after says that it was durable.
        produce(&mut rig, P, 2, 0, 100);
        if is_stopped {
            rig.stop();
        }
        let (claim, bytes) = batch(P, 1, 0, 100);
        let disk = rig.disk.after_power_cut(|_, _| false);
        let name = disk.segments()[0].to_owned();
        let at = disk.find(&name, &bytes);
        let unharmed = Rig::started(config(), disk.clone());
        assert!(matches!(unharmed.log.judge(&claim, true), Verdict::Duplicate(_)));
        assert_eq!(unharmed.log.judge(&batch(P, 3, 0, 100).0, true), Verdict::New, "it never came");

        // Its body, then its header: once the claim is damaged, once the whole entry is gone.
        for damaged in [at + 60, at - 40] {
            let mut disk = disk.clone();
            disk.flip(&name, damaged);
            let mut rig = Rig::started(config(), disk);
            assert_eq!(rig.log.judge(&claim, true), Verdict::Unknown, "stopped: {is_stopped}");
            assert_eq!(rig.log.judge(&claim, false), Verdict::New, "a new producer");
            produce(&mut rig, P, 4, 0, 100);
            assert_eq!(rig.log.judge(&batch(P, 4, 1, 100).0, true), Verdict::New, "it is known");
            let day = rig.log.config().producer_idle_ms_max as u64;
            rig.pass(day + 1);
            produce(&mut rig, P, 5, 0, 100);
            assert_eq!(rig.log.judge(&claim, true), Verdict::New, "a day later");
        }
    }
}
