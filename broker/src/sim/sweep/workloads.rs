//! The lives that are crashed. Each tells one story of a log, in 64 KiB segments, and demands of itself
//! that the story really happened.

use corelog_protocol::ids::PartitionId;

use crate::log::{AppendError, LogConfig, Retention};
use crate::random::Random;
use crate::sim::disk::{Files, Loose};
use crate::sim::sweep::Checked;
use crate::sim::sweep::cow::CowImage;
use crate::sim::sweep::life::{Life, Trial};
use crate::sim::sweep::rig::{OrderKind, small_config};
use crate::time::Nanos;

/// A story: how it is told depends on the seed, and on how long it may be (1 for tests, more for long
/// runs).
pub type Workload = fn(seed: u64, length: usize) -> Checked<Trial>;

/// By name.
pub const ALL: [(&str, Workload); 8] = [
    ("appends", appends),
    ("rolls", rolls),
    ("retention", retention),
    ("truncation", truncation),
    ("full-disk", full_disk),
    ("idle", idle),
    ("write-refused", write_refused),
    ("flush-refused", flush_refused),
];

const A: PartitionId = PartitionId(11);
const B: PartitionId = PartitionId(12);
const C: PartitionId = PartitionId(13);

fn begin(config: LogConfig, retention: Retention, seed: u64) -> Checked<Life> {
    let partitions = [A, B, C].map(|id| (id, retention)).to_vec();
    Life::begin(config, partitions, seed).recovered()
}

fn demand(is_so: bool, story: &str) -> Checked<()> {
    if is_so { Ok(()) } else { Err(format!("the workload is not about {story}")) }
}

/// Batches and states of three partitions, with several commits in flight, whose writes and flushes
/// complete in any order.
pub fn appends(seed: u64, length: usize) -> Checked<Trial> {
    let mut life = begin(small_config(), Retention::default(), seed)?;
    write_some(&mut life, seed, 14 * length)?;
    life.durable()?;
    demand(life.ledger.len() > 10 * length, "appends")?;
    Ok(life.end("appends"))
}

/// Appends of mixed sizes; orders complete at random between them.
fn write_some(life: &mut Life, seed: u64, count: usize) -> Checked<()> {
    let mut random = Random::new(seed);
    let mut in_flight_max = 0;
    for number in 0..count {
        let partition = [A, B, C][random.below(3) as usize];
        let bytes = [20, 90, 300, 1500][random.below(4) as usize];
        if number % 6 == 5 {
            let _ = life.append_state(partition, 60);
        }
        life.append_patiently(partition, 1 + random.below(3) as u32, bytes)?;
        in_flight_max = in_flight_max.max(life.rig.in_flight());
        if number % 4 == 3 {
            life.rig.check_visible(partition)?;
        }
        // Now and then nothing completes for a while, until the pipeline is full.
        life.go_on([0, 0, 0, 1, 2, 5][random.below(6) as usize]);
    }
    demand(count < 10 || in_flight_max > 1, "several commits in flight")
}

/// Segments fill up, are sealed, and others take their place.
pub fn rolls(seed: u64, length: usize) -> Checked<Trial> {
    let mut life = begin(small_config(), Retention::default(), seed)?;
    let mut random = Random::new(seed);
    for _ in 0..16 * length {
        let partition = [A, B, C][random.below(3) as usize];
        let bytes = [4_000, 9_000, 13_000][random.below(3) as usize];
        life.append_patiently(partition, 1, bytes)?;
        life.go_on(random.below(4) as usize);
    }
    life.durable()?;
    life.rig.settle()?;
    demand(life.rig.heard.rolls >= 2 * length as u64, "rolls")?;
    Ok(life.end("rolls"))
}

/// Old segments expire, are dropped, and their files are used again.
pub fn retention(seed: u64, length: usize) -> Checked<Trial> {
    let keep = Retention { bytes: Some(24 << 10), ..Retention::default() };
    let mut life = begin(small_config(), keep, seed)?;
    let mut random = Random::new(seed);
    for number in 0..24 * length {
        let partition = [A, B][random.below(2) as usize];
        life.append_patiently(partition, 2, 5_500)?;
        life.go_on(random.below(4) as usize);
        if number % 6 == 5 {
            life.durable()?;
            life.pass(Nanos::from_secs(1), 3)?;
            // Nothing but the log's own entries may hold a segment back.
            let needed = life.rig.log.next_lsn();
            life.rig.log.set_needed_from(needed);
        }
    }
    life.durable()?;
    life.pass(Nanos::from_secs(1), 3)?;
    let counters = life.rig.log.counters();
    demand(counters.segments_dropped >= length as u64, "dropped segments")?;
    demand(counters.segments_recycled >= 1, "recycled segments")?;
    Ok(life.end("retention"))
}

/// Two crashes that leave a later commit without an earlier one. The life that is swept begins after
/// the second: it truncates, appends where others were, and is crashed.
pub fn truncation(seed: u64, length: usize) -> Checked<Trial> {
    let mut trial = appends(seed, 1)?;
    for life_number in 1..=2 {
        let image = torn(&trial).ok_or("never two commits in flight")?;
        let image = CowImage::from(image);
        let (survey, _) = trial.surveyor.look(&image, seed)?;
        demand(survey.report.commits_truncated > 0, "truncated commits")?;
        let mut life = Life::after(&trial, &image, &survey, seed + life_number).recovered()?;
        write_some(&mut life, seed + life_number, 6 * length)?;
        life.durable()?;
        trial = life.end("truncation");
    }
    Ok(trial)
}

/// What the disk holds when of several writes in flight only the last has arrived.
fn torn(trial: &Trial) -> Option<crate::sim::disk::Image> {
    let mut files = Files::load(&trial.first);
    let mut torn = None;
    for step in &trial.steps {
        files.apply(step);
        let loose = files.loose();
        let writes = |loose: &Loose| match loose {
            Loose::Sector { write, .. } => Some(*write),
            _ => None,
        };
        let all_sectors = loose.iter().all(|loose| writes(loose).is_some());
        let first = loose.iter().filter_map(writes).min();
        let last = loose.iter().filter_map(writes).max();
        // Two commits of one segment, not the header and the commit of a new one.
        let near = loose.len() > 2
            && loose
                .iter()
                .all(|loose| matches!(loose, Loose::Sector { position, .. } if *position >= 8192));
        if all_sectors && near && first < last {
            torn = Some(files.crash(|loose| writes(loose) == last));
        }
    }
    torn
}

/// The disk is full; what was refused stays refused, and when there is room again the log goes on.
pub fn full_disk(seed: u64, length: usize) -> Checked<Trial> {
    let mut life = begin(small_config(), Retention::default(), seed)?;
    life.rig.settle()?;
    let directory = life.rig.log.config().directory;
    let used = life.rig.disk.files().used_bytes(directory);
    life.rig.disk.set_capacity(directory, used + (70 << 10) * length as u64);
    let mut random = Random::new(seed);
    let mut full = 0;
    for _ in 0..60 * length {
        match life.append([A, B][random.below(2) as usize], 1, 11_000) {
            Err(AppendError::Full) => full += 1,
            Err(AppendError::Busy) | Ok(_) => {}
            Err(error) => return Err(format!("an append to a full disk: {error:?}")),
        }
        life.go_on(2);
        if full == 3 {
            break;
        }
        life.rig.round();
    }
    demand(full > 0 && life.ledger.refusals() > 0, "a full disk")?;
    life.rig.read_all(A)?;
    life.rig.disk.set_capacity(directory, 1 << 40);
    let rooms = life.rig.heard.rooms;
    life.rig.run("room after a full disk", |rig| rig.heard.rooms > rooms)?;
    for _ in 0..6 * length {
        life.append_patiently(B, 2, 3_000)?;
        life.go_on(1);
    }
    life.durable()?;
    Ok(life.end("full-disk"))
}

/// The lane falls idle again and again, and each time says that its last commit is durable.
pub fn idle(seed: u64, length: usize) -> Checked<Trial> {
    let mut life = begin(small_config(), Retention::default(), seed)?;
    for number in 0..3 * length {
        write_some(&mut life, seed + number as u64, 6)?;
        life.idle()?;
    }
    demand(life.rig.log.counters().commits_idle_padding >= 3 * length as u64, "idle padding")?;
    Ok(life.end("idle"))
}

/// The device refuses a write. Nothing is acknowledged from then on.
pub fn write_refused(seed: u64, length: usize) -> Checked<Trial> {
    refused(seed, length, OrderKind::Write, "write-refused")
}

/// The device refuses a flush: what it would have covered is in doubt for ever.
pub fn flush_refused(seed: u64, length: usize) -> Checked<Trial> {
    refused(seed, length, OrderKind::Flush, "flush-refused")
}

fn refused(seed: u64, length: usize, kind: OrderKind, name: &str) -> Checked<Trial> {
    let mut life = begin(small_config(), Retention::default(), seed)?;
    write_some(&mut life, seed, 4 * length)?;
    // The preparation of segments is not what this is about.
    life.durable()?;
    life.rig.settle()?;
    life.rig.refuse = Some(kind);
    let mut random = Random::new(seed);
    for _ in 0..40 {
        let _ = life.append([A, B, C][random.below(3) as usize], 1, 700);
        life.go_on(random.below(3) as usize);
    }
    life.rig.settle()?;
    demand(life.rig.heard.failed.is_some(), "a refused order")?;
    demand(life.append(A, 1, 100) == Err(AppendError::Failed), "a failed directory")?;
    life.rig.read_all(A)?;
    Ok(life.end(name))
}
