//! The first steps: shard 0 recovers the metadata and tells the others; then each recovers its
//! lanes, and is ready. Who leads which lane is computed anew, so the number of shards may change.

use corelog_protocol::batch::RECORDS_PER_BATCH_MAX;
use corelog_protocol::ids::{LaneId, ShardId};

use super::effect::Effect;
use super::lane::{Lane, LaneState};
use super::metadata_keeper::MetadataKeeper;
use super::{Cx, Shard};
use crate::disk::DirectoryId;
use crate::limits::{
    BLOCK_BYTES, BODY_BYTES_HARD, COMMIT_BYTES_TARGET, FRAME_BYTES_HARD, METADATA_BODY_BYTES_MAX,
    METADATA_SEGMENT_BYTES, PRODUCER_BYTES, PRODUCER_IMAGE_BYTES, RESERVE_BYTES_MAX,
    SEGMENT_BYTES_FIRST,
};
use crate::log::{Log, LogConfig};
use crate::memory::Memory;
use crate::random::Random;

impl Shard {
    pub(super) fn on_start<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        self.started_at = cx.now.monotonic;
        self.is_started = true;
        if self.config.shard == ShardId(0) {
            self.keeper = Some(MetadataKeeper::new(&self.config));
            self.make_lane(cx, LaneId::METADATA, DirectoryId(0), false);
        } else if self.view.version() > 0 {
            // The view was faster than the start.
            self.make_lanes(cx);
            let view = std::mem::take(&mut self.view);
            self.has_view = false;
            self.on_view(cx, view);
        }
    }

    /// The lanes are known, and not made yet.
    pub(super) fn lanes_are_due(&self) -> bool {
        let own = usize::from(self.keeper.is_some());
        self.is_started && self.lanes.len() == own && !self.are_lanes_made
    }

    /// Makes the lanes that have a replica here, and begins to recover them.
    pub(super) fn make_lanes<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.view.state().lanes().is_empty() {
            return;
        }
        self.are_lanes_made = true;
        let view = std::sync::Arc::clone(&self.view);
        for record in view.lanes_of(self.config.shard, self.config.shards) {
            let Some(replica) = record.member(view.me()) else { continue };
            let is_replicated = record.replicas.len() > 1;
            self.make_lane(cx, record.id, replica.directory, is_replicated);
        }
    }

    pub(super) fn make_lane<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        id: LaneId,
        directory: DirectoryId,
        is_replicated: bool,
    ) {
        let owner = u16::try_from(self.lanes.len()).expect("far fewer lanes");
        let mut config = self.log_config(id, directory, owner);
        config.replicated = is_replicated;
        let mut log = Log::new(config, Random::new(self.random.next_u64()));
        if directory.0 < self.config.directories {
            log.start(&mut cx.io(&mut self.ops));
        } else {
            // Its disk is not among those of this start.
            log.fail();
        }
        self.lanes.push(Lane::new(id, log));
        let at = id.0 as usize;
        if self.lane_indexes.len() <= at {
            self.lane_indexes.resize(at + 1, None);
        }
        self.lane_indexes[at] = Some(owner);
        if is_replicated {
            self.seat(cx, usize::from(owner));
        }
    }

    fn log_config(&self, id: LaneId, directory: DirectoryId, owner: u16) -> LogConfig {
        let shard = &self.config;
        let mut config = LogConfig::new(id, directory, shard.cluster, shard.incarnation, owner);
        let is_metadata = id == LaneId::METADATA;
        config.segment_bytes = match is_metadata {
            true => shard.segment_bytes.min(METADATA_SEGMENT_BYTES as u64),
            false => shard.segment_bytes,
        };
        // Headers, a checkpoint and a footer need room beside the largest body.
        let fits = (config.segment_bytes as usize).saturating_sub(8 * BLOCK_BYTES);
        let body_bytes_max = match is_metadata {
            true => METADATA_BODY_BYTES_MAX,
            false => shard.frame_bytes_max.min(BODY_BYTES_HARD),
        };
        config.body_bytes_max = body_bytes_max.min(fits) as u32;
        config.segment_bytes_first = config.segment_bytes.min(SEGMENT_BYTES_FIRST as u64);
        config.records_per_entry_max = RECORDS_PER_BATCH_MAX;
        let lanes = u64::from(shard.lanes_per_shard).max(1);
        config.tail_cache_bytes = match is_metadata {
            true => 0,
            false => (shard.memory_bytes / 32 / lanes as usize).max(4 * BLOCK_BYTES),
        };
        // An eighth for reads from the disk: consumers that lag must not crowd out producers.
        config.read_bytes_max = shard.memory_bytes / 8 / lanes as usize;
        // On a small budget commits must leave room for everything else.
        let share = shard.memory_bytes / 4 / lanes as usize;
        // No commit is larger than its segment.
        let commit_bytes = COMMIT_BYTES_TARGET.min(config.segment_bytes as usize);
        config.commits_in_flight_max =
            (share / commit_bytes).clamp(1, config.commits_in_flight_max);
        config.gather_bytes = shard.gather_bytes;
        // The lanes share it.
        config.scrub_bytes_per_second = match is_metadata {
            true => 0,
            false => shard.scrub_bytes_per_second.div_ceil(lanes),
        };
        // An eighth of a segment for its checkpoint, which must also fit a frame to another broker; and a sixteenth of
        // the memory.
        let checkpoint_bytes = (config.segment_bytes as usize / 8).min(FRAME_BYTES_HARD / 2);
        let producers = (checkpoint_bytes / PRODUCER_IMAGE_BYTES)
            .min(shard.memory_bytes / 16 / lanes as usize / PRODUCER_BYTES);
        config.producers_max = config.producers_max.min(producers).max(16);
        config.reserve_bytes = match is_metadata {
            true => 0,
            false => (2 * shard.segment_bytes).min(RESERVE_BYTES_MAX as u64),
        };
        config
    }

    /// Partitions of deleted topics may still be in the log of a lane that has just recovered.
    pub(super) fn delete_what_is_deleted(&mut self, lane: usize) {
        let state = self.view.state();
        let log = &mut self.lanes[lane].log;
        // By what the log knows: a list of deleted ranges may name far more.
        let known = log.partitions().map(|(id, _)| id);
        let deleted: Vec<_> = known.filter(|id| state.is_deleted(*id)).collect();
        deleted.into_iter().for_each(|id| log.delete_partition(id));
    }

    /// Says that connections are welcome, once, when all lanes are recovered or failed.
    pub(super) fn check_ready<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        if self.is_ready || !self.is_started {
            return;
        }
        if self.config.is_clustered() {
            // The others must be able to connect before there is a leader, and so before there is a view.
            let is_recovered = |lane: &Lane| lane.state != LaneState::Recovering;
            if self.keeper.is_none() || self.lanes.first().is_some_and(is_recovered) {
                self.is_ready = true;
                cx.effects.push(Effect::Ready);
            }
            return;
        }
        if !self.has_view {
            return;
        }
        let is_known = self.are_lanes_made || self.view.is_lost();
        let is_recovered = self.lanes.iter().all(|lane| lane.state != LaneState::Recovering);
        if is_known && is_recovered {
            self.is_ready = true;
            cx.effects.push(Effect::Ready);
        }
    }
}
