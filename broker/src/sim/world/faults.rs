//! What goes wrong, when its time has come.

use super::{Action, World};
use crate::disk::{DirectoryId, DiskError, DiskOrder};
use crate::shard::event::Event;
use crate::sim::disk::{Fault, Loose, SimDisk};
use crate::sim::plan::{CrashStyle, FaultKind};

const ROOMY_BYTES: u64 = 1 << 40;

#[derive(Clone, Copy, Debug)]
struct Cut {
    style: CrashStyle,
    shards: u16,
    down: u64,
    again: bool,
    damage: bool,
}

#[derive(Debug, Default)]
pub struct Faults {
    /// Disk completions until the power fails.
    countdown: Option<(u32, Cut)>,
    refuse_write: bool,
    refuse_flush: bool,
    refuse_read: bool,
    /// Of a write of a data lane: report it, and lose it, or let it land elsewhere.
    pub lose_write: bool,
    pub misdirect_write: bool,
    stalled_until: u64,
    /// Bytes free now on each full directory.
    is_full: bool,
    /// Kill the process soon, because a directory has failed.
    pub kill_planned: bool,
    /// The medium has broken its word: typed gaps are in order from here on.
    pub has_damaged: bool,
    /// Shards of the next start.
    shards_next: u16,
    quiet: bool,
}

impl World {
    pub(super) fn on_fault(&mut self, fault: FaultKind) {
        if self.ending.has_begun() {
            return;
        }
        self.tally.one(fault.name());
        let now = self.now;
        self.trace.line(now, || format!("{fault:?}"));
        match fault {
            FaultKind::Crash { style, after, shards, down, again, damage } => {
                let cut = Cut { style, shards, down, again, damage };
                self.faults.countdown = Some((after, cut));
                // An idle disk completes nothing: the cut comes anyway.
                self.after(20_000_000, Action::PowerCut);
            }
            FaultKind::Restart { shards } => self.stop_broker(shards),
            FaultKind::StallDisk { length } => self.faults.stalled_until = self.now + length,
            FaultKind::RefuseWrite { flush: true } => self.faults.refuse_flush = true,
            FaultKind::RefuseWrite { flush: false } => self.faults.refuse_write = true,
            FaultKind::RefuseRead => self.faults.refuse_read = true,
            FaultKind::LoseWrite => self.faults.lose_write = true,
            FaultKind::MisdirectWrite => self.faults.misdirect_write = true,
            FaultKind::FullDisk { length, room } => {
                self.faults.is_full = true;
                for directory in (0..self.plan.directories).map(DirectoryId) {
                    let used = self.disk.files().used_bytes(directory);
                    self.disk.set_capacity(directory, used + room);
                }
                self.checks.space.on_full();
                self.after(length, Action::FreeDisk);
            }
            FaultKind::ResetLinks => self.some_links(|world, link| world.reset_link(link)),
            FaultKind::StallLinks { length } => {
                let until = self.now + length;
                self.some_links(|world, link| world.links[link].stalled_until = until);
            }
            FaultKind::HalfOpen => self.some_links(|world, link| world.links[link].silent = true),
            FaultKind::CorruptUp => {
                self.some_links(|world, link| world.links[link].corrupt_next = true)
            }
            FaultKind::WallJump { millis } => {
                self.wall_max_ms = self.wall_max_ms.max(self.wall_ms());
                self.wall_offset_ms += millis;
            }
        }
    }

    fn some_links(&mut self, mut hit: impl FnMut(&mut Self, usize)) {
        for link in 0..self.links.len() {
            if !self.links[link].is_over() && self.random.chance(1, 2) {
                hit(self, link);
            }
        }
    }

    pub(super) fn stop_broker(&mut self, shards: u16) {
        let Some(broker) = &mut self.broker else { return };
        if !broker.is_ready() {
            return;
        }
        broker.stopping = true;
        self.faults.shards_next = shards;
        self.tally.one("stops in good order");
        for shard in 0..self.broker.as_ref().map_or(0, |broker| broker.shards.len()) {
            self.step(shard, Event::Stop);
        }
    }

    pub(super) fn free_disk(&mut self) {
        if std::mem::take(&mut self.faults.is_full) {
            self.apply_capacity();
            self.checks.space.on_freed();
        }
    }

    /// A disk starts roomy.
    pub(super) fn apply_capacity(&mut self) {
        for directory in (0..self.plan.directories).map(DirectoryId) {
            if self.faults.is_full {
                let used = self.disk.files().used_bytes(directory);
                self.disk.set_capacity(directory, used);
            } else {
                self.disk.set_capacity(directory, ROOMY_BYTES);
            }
        }
    }

    pub(super) fn disk_delay(&mut self, order: &DiskOrder) -> u64 {
        let most = match order {
            DiskOrder::Read { .. } | DiskOrder::Write { .. } | DiskOrder::Zero { .. } => {
                self.plan.disk_latency / 2
            }
            DiskOrder::Flush { .. } | DiskOrder::SyncFolder { .. } => self.plan.disk_latency,
            _ => self.plan.disk_latency / 4,
        };
        let delay = self.draw_delay(most);
        delay.max(self.faults.stalled_until.saturating_sub(self.now))
    }

    pub(super) fn draw_fault(&mut self, shard: usize, order: &DiskOrder) -> Option<Fault> {
        if let DiskOrder::Write { file, position, .. } = order
            && (self.faults.lose_write || self.faults.misdirect_write)
            && let Some(fault) = self.draw_broken_word(shard as u16, *file, *position)
        {
            return Some(fault);
        }
        let armed = match order {
            DiskOrder::Write { .. } | DiskOrder::Zero { .. } => &mut self.faults.refuse_write,
            DiskOrder::Flush { .. } => &mut self.faults.refuse_flush,
            DiskOrder::Read { .. } => {
                return std::mem::take(&mut self.faults.refuse_read)
                    .then_some(Fault::Refuse(DiskError::Io));
            }
            _ => return None,
        };
        if !std::mem::take(armed) {
            return None;
        }
        if !std::mem::replace(&mut self.faults.kill_planned, true) {
            let delay = 50_000_000 + self.random.below(300_000_000);
            self.after(delay, Action::Kill);
        }
        Some(Fault::Refuse(DiskError::Io))
    }

    /// True if the power has just failed.
    pub(super) fn count_down_to_power_cut(&mut self) -> bool {
        match &mut self.faults.countdown {
            Some((0, _)) => {
                self.power_cut();
                true
            }
            Some((left, _)) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn power_cut(&mut self) {
        let Some((_, cut)) = self.faults.countdown.take() else { return };
        if self.broker.is_none() {
            return;
        }
        self.cut(cut.style);
        if cut.damage && !self.faults.quiet {
            self.damage();
            self.void_what_is_lost();
        }
        if cut.again {
            // The next one hits the recovery.
            let after = self.random.below(25) as u32;
            let again = Cut { again: self.random.chance(1, 3), ..cut };
            self.faults.countdown = Some((after, again));
            self.tally.one("crashes of a recovery planned");
        }
        self.after(cut.down, Action::StartBroker { shards: cut.shards });
    }

    /// After a stop in good order, or when the process is given up: what was written stays.
    pub(super) fn kill(&mut self) {
        let Some(broker) = &self.broker else { return };
        let stopped = broker.is_stopped();
        if !stopped && !self.faults.kill_planned {
            return;
        }
        self.faults.kill_planned = false;
        if stopped {
            self.ending.on_stopped();
        }
        let shards = if stopped { self.faults.shards_next } else { broker.shards.len() as u16 };
        self.cut(if stopped { CrashStyle::Bare } else { CrashStyle::Torn(50) });
        let down = self.random.below(100_000_000);
        self.after(down, Action::StartBroker { shards: shards.max(1) });
    }

    /// The broker is gone, and with it everything loose that the style does not keep.
    fn cut(&mut self, style: CrashStyle) {
        self.count_broker();
        self.broker = None;
        self.faults.kill_planned = false;
        self.lives += 1;
        self.tally.one("crashes");
        let random = &mut self.random;
        let (mut kept, mut dropped) = (0, 0);
        self.image = self.disk.crash(|loose| {
            let keep = match style {
                CrashStyle::Bare => false,
                CrashStyle::Whole => true,
                CrashStyle::Torn(share) => random.chance(share, 100),
            };
            if matches!(loose, Loose::Sector { .. }) {
                *(if keep { &mut kept } else { &mut dropped }) += 1;
            }
            keep
        });
        self.disk = SimDisk::new();
        self.tally.add("sectors kept by crashes", kept);
        self.tally.add("sectors lost by crashes", dropped);
        let now = self.now;
        self.trace.mix(&[now, 50, self.image.digest()]);
        self.trace.line(now, || format!("POWER CUT: {kept} loose sectors kept, {dropped} lost"));
        self.checks.durable.on_crash(self.image.contents());
        self.void_what_is_lost();
        self.checks.recovery.on_crash();
        for link in 0..self.links.len() {
            self.links[link].take_sends();
            if self.links[link].served.take().is_some() || self.links[link].is_up {
                self.checks.answers.on_closed(link as u64);
            }
            if !self.links[link].client_gone && !self.links[link].silent {
                let delay = self.draw_delay(5_000_000);
                self.after(delay, Action::LinkClosed { link });
            }
        }
    }

    /// Everything that is broken and can heal does.
    pub(super) fn heal(&mut self) {
        let (has_damaged, shards_next) = (self.faults.has_damaged, self.faults.shards_next);
        let kill_planned = self.faults.kill_planned;
        self.free_disk();
        // A flood is read back in finite time.
        self.plan.net_latency = self.plan.net_latency.min(100_000);
        self.plan.disk_latency = self.plan.disk_latency.min(300_000);
        self.plan.chunk_bytes = self.plan.chunk_bytes.max(4096);
        self.faults =
            Faults { has_damaged, shards_next, kill_planned, quiet: true, ..Faults::default() };
        for link in 0..self.links.len() {
            self.links[link].stalled_until = 0;
            if self.links[link].silent && !self.links[link].client_gone {
                self.links[link].silent = false;
                self.reset_link(link);
            }
        }
    }

    /// A last power cut, once everything is quiet: nothing may depend on luck.
    pub(super) fn last_cut(&mut self, style: CrashStyle, shards: u16) {
        if self.broker.is_some() {
            self.cut(style);
            self.after(1_000_000, Action::StartBroker { shards });
        }
    }
}
