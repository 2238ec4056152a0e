//! Many lives of one log, from a seed: completions in any order, power cuts that keep any sectors,
//! kills that keep the device's cache, damage of nothing. What was acknowledged is always there.

use std::collections::BTreeMap;

use corelog_protocol::ids::{Offset, PartitionId};

use super::rig::{Disk, P, Q, Rig, body, config};
use crate::disk::DiskOrder;
use crate::log::{LogEvent, Retention};
use crate::random::Random;

const SECTOR: usize = 512;

#[derive(Default)]
struct Expected {
    /// Appended in this life and not yet durable: LSN, partition, offset, tag, bytes.
    pending: Vec<(u64, PartitionId, u64, u32, usize)>,
    acknowledged: BTreeMap<(PartitionId, u64), (u32, usize)>,
}

fn settle(rig: &mut Rig, expected: &mut Expected) {
    let events = std::mem::take(&mut rig.events);
    for event in events {
        match event {
            LogEvent::Durable { through, .. } => {
                let pending = std::mem::take(&mut expected.pending);
                for entry in pending {
                    let (lsn, partition, offset, tag, len) = entry;
                    if lsn <= through.0 {
                        expected.acknowledged.insert((partition, offset), (tag, len));
                    } else {
                        expected.pending.push(entry);
                    }
                }
            }
            LogEvent::Failed(failure) => panic!("{failure:?}"),
            _ => {}
        }
    }
}

/// Breaks the loose writes into sectors and keeps any of them, in any order.
pub fn power_cut(disk: &Disk, random: &mut Random) -> Disk {
    let mut torn = disk.clone();
    for file in torn.files.values_mut() {
        let mut sectors = Vec::new();
        for (position, bytes) in &file.loose {
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                sectors.push((position + (at * SECTOR) as u64, sector.to_vec()));
            }
        }
        file.loose = sectors;
    }
    let odds = [1, 8, 15][random.below(3) as usize];
    let mut dice = random.clone();
    random.next_u64();
    torn.after_power_cut(|_, _| dice.chance(odds, 16))
}

fn verify(rig: &mut Rig, expected: &Expected, seed: u64) {
    // Nothing expires while it is looked at.
    for partition in [P, Q] {
        rig.log.open_partition(partition, Retention::default());
    }
    rig.run();
    for partition in [P, Q] {
        let bounds = rig.log.partition(partition).unwrap();
        let (found, lost) = rig.read_all(partition, bounds.log_start.0);
        assert_eq!(lost, [], "seed {seed}: nothing was damaged {bounds:?}");
        let found: BTreeMap<u64, Vec<u8>> = found.into_iter().collect();
        let kept = expected.acknowledged.range((partition, bounds.log_start.0)..);
        for ((_, offset), (tag, len)) in kept.take_while(|((of, _), _)| *of == partition) {
            let bytes = found.get(offset);
            assert!(
                bytes.is_some_and(|bytes| *bytes == body(*tag, *len)),
                "seed {seed}: offset {offset} of {partition} in {bounds:?}"
            );
        }
        let dense = bounds.log_start.0..bounds.committed_end.0;
        assert!(found.keys().copied().eq(dense), "seed {seed}: offsets are not dense");
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut config = config();
    config.gather_bytes = 1 << random.below(17);
    config.commits_in_flight_max = 1 + random.below(4) as usize;
    config.tail_cache_bytes = 1 << random.below(21);
    let retention = Retention { age_ms: None, bytes: random.chance(1, 2).then_some(80_000) };
    let mut expected = Expected::default();
    let mut disk = Disk::new();
    let mut tag = 0;
    for _ in 0..1 + random.below(5) {
        let mut rig = Rig::new(config.clone(), disk.clone());
        rig.log.open_partition(P, retention);
        rig.log.open_partition(Q, retention);
        let mut recovered = false;
        let mut verified = false;
        for _ in 0..random.below(1_500) {
            recovered |= rig.events.iter().any(|event| matches!(event, LogEvent::Recovered(_)));
            if !verified && recovered {
                settle(&mut rig, &mut expected);
                verify(&mut rig, &expected, seed);
                rig.log.open_partition(P, retention);
                rig.log.open_partition(Q, retention);
                verified = true;
            }
            match random.below(8) {
                0..4 if !rig.orders.is_empty() => {
                    let chosen = random.below(rig.orders.len() as u64) as usize;
                    let chosen = rig.orders[chosen].1.clone();
                    rig.complete(|order| *order == chosen);
                }
                0..6 => {
                    let partition = if random.chance(1, 2) { P } else { Q };
                    let scale = random.below(10);
                    let len = 8 + random.below(8 << scale) as usize;
                    tag += 1;
                    if let Ok(appended) = rig.append(partition, &body(tag, len)) {
                        let Offset(offset) = appended.base_offset;
                        expected.pending.push((appended.lsn.0, partition, offset, tag, len));
                    }
                }
                6 if rig.log.wants_turn() => rig.call(|log, io| log.on_turn(io)),
                _ => {
                    rig.now.monotonic.0 += random.below(200_000_000);
                    rig.call(|log, io| log.on_wake(io));
                }
            }
            recovered |= rig.events.iter().any(|event| matches!(event, LogEvent::Recovered(_)));
            settle(&mut rig, &mut expected);
        }
        // Writes that were ordered and not reported may be on the medium too.
        for (_, order) in std::mem::take(&mut rig.orders) {
            if let DiskOrder::Write { .. } = order {
                rig.disk.carry_out(&mut rig.memory, &order);
            }
        }
        // The cut may keep more than was acknowledged, never less.
        expected.pending.clear();
        let kill = random.chance(1, 4);
        disk = if kill {
            let mut killed = rig.disk.clone();
            killed.forget_handles();
            killed
        } else {
            power_cut(&rig.disk, &mut random)
        };
    }
    expected.pending.clear();
    let mut rig = Rig::started(config, disk);
    verify(&mut rig, &expected, seed);
    rig.stop();
}

#[test]
fn what_was_acknowledged_survives_every_life() {
    for seed in 0..100 {
        println!("seed {seed}");
        run(seed);
    }
}
