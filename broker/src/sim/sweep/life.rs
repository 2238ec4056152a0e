//! One life of a log on a disk that records every step, and the ledger of what was promised in it.

use corelog_protocol::entry::EntryKind;
use corelog_protocol::ids::{Offset, PartitionId};

use crate::log::{AppendError, Appended, LogConfig, Retention};
use crate::random::Random;
use crate::sim::disk::{Image, SimDisk, Step};
use crate::sim::sweep::Checked;
use crate::sim::sweep::cow::CowImage;
use crate::sim::sweep::ledger::Ledger;
use crate::sim::sweep::rig::{Rig, Seen};
use crate::sim::sweep::survey::{Survey, Surveyor, batch};
use crate::time::Nanos;

/// A life that can be cut off after each of its steps.
pub struct Trial {
    pub name: String,
    pub first: Image,
    pub steps: Vec<Step>,
    pub ledger: Ledger,
    pub surveyor: Surveyor,
}

pub struct Life {
    pub rig: Rig<SimDisk>,
    pub ledger: Ledger,
    first: Image,
    partitions: Vec<(PartitionId, Retention)>,
    config: LogConfig,
    /// Of the next body: no two are alike.
    fill: u64,
    wall_ms: i64,
}

/// When the first life of a disk begins, Unix ms, and how far apart lives are.
const FIRST_WALL_MS: i64 = 1_700_000_000_000;
const LIFE_MS: i64 = 3_600_000;

impl Life {
    /// On an empty disk. Recovery has begun; nothing is complete.
    pub fn begin(config: LogConfig, partitions: Vec<(PartitionId, Retention)>, seed: u64) -> Self {
        let ledger = Ledger::default();
        Self::on(Image::default(), ledger, config, partitions, seed, FIRST_WALL_MS)
    }

    /// The next life after a crash of this trial's disk that left `image`, which recovers to `survey`.
    pub fn after(trial: &Trial, image: &CowImage, survey: &Survey, seed: u64) -> Self {
        let Surveyor { config, partitions, wall_ms, .. } = &trial.surveyor;
        let partitions = partitions.iter().map(|id| (*id, Retention::default())).collect();
        let ledger = Ledger::from_survey(survey);
        Self::on(image.to_image(), ledger, config.clone(), partitions, seed, *wall_ms)
    }

    fn on(
        first: Image,
        mut ledger: Ledger,
        config: LogConfig,
        partitions: Vec<(PartitionId, Retention)>,
        seed: u64,
        wall_ms: i64,
    ) -> Self {
        for (id, retention) in &partitions {
            if let Some(bytes) = retention.bytes {
                ledger.retain(*id, bytes);
            }
        }
        let mut disk = SimDisk::load(&first);
        disk.record();
        let mut rig = Rig::boot(config.clone(), disk, seed, wall_ms, &partitions);
        rig.shuffle(seed ^ 0x5af1e);
        let fill = Random::new(seed).next_u64();
        Self { rig, ledger, first, partitions, config, fill, wall_ms }
    }

    pub fn recovered(mut self) -> Checked<Self> {
        self.rig.recover()?;
        Ok(self)
    }

    fn body(&mut self, records: u32, bytes: usize) -> Vec<u8> {
        self.fill += 1;
        batch(records, bytes, self.fill)
    }

    /// One attempt; the ledger learns how it ended.
    pub fn append(
        &mut self,
        partition: PartitionId,
        records: u32,
        value_bytes: usize,
    ) -> Result<Appended, AppendError> {
        let body = self.body(records, value_bytes);
        self.append_body(EntryKind::Batch, partition, records, body)
    }

    /// An entry for the shard's fold.
    pub fn append_state(
        &mut self,
        partition: PartitionId,
        bytes: usize,
    ) -> Result<Appended, AppendError> {
        let body = self.body(1, bytes);
        self.append_body(EntryKind::ProducerState, partition, 0, body)
    }

    fn append_body(
        &mut self,
        kind: EntryKind,
        partition: PartitionId,
        record_count: u32,
        body: Vec<u8>,
    ) -> Result<Appended, AppendError> {
        let steps = self.rig.disk.trace().len();
        let appended = self.rig.append(kind, partition, record_count, &body);
        match &appended {
            Ok(appended) => {
                let base_offset = if record_count > 0 { appended.base_offset } else { Offset(0) };
                let seen = Seen {
                    lsn: appended.lsn,
                    epoch: appended.epoch.0,
                    kind,
                    partition,
                    base_offset,
                    record_count,
                    body,
                };
                self.ledger.give(seen, steps);
            }
            Err(_) => self.ledger.refuse(&body),
        }
        appended
    }

    /// Tries until the log takes it; each attempt is another batch.
    pub fn append_patiently(
        &mut self,
        partition: PartitionId,
        records: u32,
        value_bytes: usize,
    ) -> Checked<Appended> {
        for _ in 0..10_000 {
            match self.append(partition, records, value_bytes) {
                Ok(appended) => return Ok(appended),
                Err(AppendError::Busy | AppendError::Full) if self.rig.round() => {}
                Err(error) => return Err(format!("an append: {error:?}")),
            }
        }
        Err("an append: busy for ever".into())
    }

    /// Lets the log close its commit, and `completions` orders complete.
    pub fn go_on(&mut self, completions: usize) {
        if self.rig.log.wants_turn() {
            self.rig.call(crate::log::Log::on_turn);
        }
        for _ in 0..completions {
            self.rig.complete_one();
        }
    }

    /// Everything that was appended becomes durable.
    pub fn durable(&mut self) -> Checked<()> {
        let next = self.rig.log.next_lsn();
        self.rig.run("durability", |rig| rig.log.durable_end() >= next)
    }

    /// The lane falls idle, for long enough that its last acknowledgment is covered.
    pub fn idle(&mut self) -> Checked<()> {
        let before = self.rig.log.counters().commits_idle_padding;
        self.durable()?;
        self.rig.run("idle padding", |rig| rig.log.counters().commits_idle_padding > before)?;
        self.durable()?;
        self.rig.settle()
    }

    /// Time passes in `steps` steps, with all that the log does about it.
    pub fn pass(&mut self, length: Nanos, steps: u32) -> Checked<()> {
        for _ in 0..steps {
            self.rig.pass(length);
            self.rig.settle()?;
        }
        Ok(())
    }

    /// The end of the story.
    pub fn end(mut self, name: impl Into<String>) -> Trial {
        for (step, through) in std::mem::take(&mut self.rig.heard.durable) {
            self.ledger.acknowledge(step, through);
        }
        let partitions = self.partitions.iter().map(|(id, _)| *id).collect();
        let surveyor = Surveyor::new(self.config, partitions, self.wall_ms + LIFE_MS);
        Trial {
            name: name.into(),
            first: self.first,
            steps: self.rig.disk.trace().to_vec(),
            ledger: self.ledger,
            surveyor,
        }
    }
}
