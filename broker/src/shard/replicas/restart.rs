//! A truncation at run time: the log is stopped and opened anew without what is void. Rare: only a replica that took
//! entries which no quorum had needs it.

use crate::log::{Log, Read};
use crate::memory::Memory;
use crate::random::Random;
use crate::replica::{Position, Resume};
use crate::shard::lane::{LaneState, Reader};
use crate::shard::topics::retention_of;
use crate::shard::{Cx, Shard};

/// In the words of the log.
pub(super) fn log_resume(resume: Resume) -> crate::log::Resume {
    let Resume { at, accepted, bad_end } = resume;
    let perhaps = bad_end.map(|end| Position { epoch: accepted, end });
    crate::log::Resume { at, accepted, perhaps }
}

impl Shard {
    pub(super) fn restart_log<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
        resume: Resume,
    ) {
        if self.stopping.is_some() {
            // The log stops, or has: it will not say so again.
            return;
        }
        self.counters.lane_truncations += 1;
        let target = &mut self.lanes[lane];
        let Some(seat) = &mut target.seat else { return };
        seat.is_log_open = false;
        seat.restart = Some(resume);
        seat.begins = None;
        for copied in seat.inbox.drain(..) {
            cx.memory.release(copied.piece.slot);
        }
        target.state = LaneState::Recovering;
        target.log.stop(&mut cx.io(&mut self.ops));
    }

    /// The log has stopped. True if it was to be opened anew.
    pub(in crate::shard) fn reopen_log<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        lane: usize,
    ) -> bool {
        let is_stopping = self.stopping.is_some();
        let target = &mut self.lanes[lane];
        let Some(seat) = &mut target.seat else { return false };
        let Some(resume) = seat.restart.take() else { return false };
        let base = seat.base.take();
        if is_stopping || target.log.failure().is_some() {
            return false;
        }
        seat.reading.clear();
        let config = target.log.config().clone();
        let random = Random::new(self.random.next_u64());
        target.log = Log::new(config, random);
        target.state = LaneState::Recovering;
        target.is_recovered = false;
        let readers: Vec<Reader> = std::mem::take(&mut target.reads).into_values().collect();
        self.open_partitions_of(lane);
        let (log, resume) = (&mut self.lanes[lane].log, log_resume(resume));
        match base.filter(|base| base.first() == resume.at) {
            Some(base) => log.start_anew(&mut cx.io(&mut self.ops), resume, base),
            None => log.start_at(&mut cx.io(&mut self.ops), resume),
        }
        for reader in readers {
            match reader {
                Reader::Fetch(id) => self.on_fetch_read(cx, id, Read::Failed, Vec::new()),
                Reader::Offsets(id) => self.run_offsets(cx, id),
            }
        }
        true
    }

    /// Tells a log that is new which partitions of the view it has.
    pub(in crate::shard) fn open_partitions_of(&mut self, lane: usize) {
        let view = std::sync::Arc::clone(&self.view);
        let target = &mut self.lanes[lane];
        for topic in view.state().topics().values() {
            let retention = retention_of(topic);
            for (partition, link) in topic.partitions() {
                if link.lane == target.id {
                    target.log.open_partition(partition, retention);
                }
            }
        }
    }
}
