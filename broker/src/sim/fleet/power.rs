//! How brokers end and come back: killed, stopped, without power, or standing still for a while.

use std::collections::BTreeSet;

use super::machine::DueCut;
use super::{Action, World};
use crate::disk::{DiskOrder, OpId};
use crate::shard::event::Event;
use crate::sim::disk::{Loose, SimDisk};
use crate::sim::fleet::plan::CutStyle;

impl World {
    /// The process ends without a word. Its machine goes on: what it had ordered of its disk is done or not, and what
    /// was written and not flushed can still be lost.
    pub(super) fn kill(&mut self, broker: usize) {
        if self.machines[broker].process.is_none() {
            return;
        }
        self.tally.one("kills");
        self.line(|| format!("KILL broker {broker}"));
        self.end_process(broker);
    }

    /// All shards have stopped.
    pub(super) fn process_stopped(&mut self, broker: usize) {
        self.line(|| format!("broker {broker} has stopped"));
        self.end_process(broker);
        self.ending.on_stopped(broker);
        if !self.ending.is_stopping() {
            let down = 1 + self.random.below(100_000_000);
            self.after(down, Action::Start { broker });
        }
    }

    fn end_process(&mut self, broker: usize) {
        self.count_broker(broker);
        let orders: Vec<(u16, OpId, bool)> = self.machines[broker]
            .disk
            .in_flight()
            .map(|(shard, op, order)| (shard, op, matches!(order, DiskOrder::Flush { .. })))
            .collect();
        let mut carried_out = BTreeSet::new();
        for (shard, op, is_flush) in orders {
            if self.random.chance(1, 2) {
                carried_out.insert((shard, op));
                if is_flush {
                    self.note_flushed(broker, shard, op);
                }
            }
        }
        let machine = &mut self.machines[broker];
        machine.process = None;
        machine.paused_until = None;
        machine.held.clear();
        machine.hung.iter_mut().for_each(Vec::clear);
        machine.disk.abandon(&carried_out);
        let keeps = self.random.chance(1, 2);
        self.end_streams_of(broker, keeps);
    }

    fn end_streams_of(&mut self, broker: usize, keeps_socket: bool) {
        for stream in 0..self.streams.len() {
            for end in 0..2 {
                let state = &self.streams[stream].ends[end];
                if state.host == broker && !state.is_over {
                    self.owner_died(stream, end, keeps_socket);
                }
            }
        }
    }

    /// The machine has no power: everything that is not flushed is lost, but for what the style keeps.
    pub(super) fn power_cut(&mut self, broker: usize, style: CutStyle) {
        if !self.machines[broker].is_on {
            return;
        }
        self.tally.one("power losses");
        self.count_broker(broker);
        let random = &mut self.random;
        let (mut kept, mut lost) = (0, 0);
        let image = self.machines[broker].disk.crash(|loose| {
            let keep = match style {
                CutStyle::Bare => false,
                CutStyle::Torn(share) => random.chance(share, 100),
            };
            if matches!(loose, Loose::Sector { .. }) {
                *(if keep { &mut kept } else { &mut lost }) += 1;
            }
            keep
        });
        let machine = &mut self.machines[broker];
        machine.disk = SimDisk::load(&image);
        machine.process = None;
        machine.paused_until = None;
        machine.held.clear();
        machine.due_cut = None;
        machine.is_on = false;
        machine.was_torn |= kept > 0;
        self.tally.add("sectors kept by power losses", kept);
        self.tally.add("sectors lost by power losses", lost);
        self.trace.mix(&[self.now, 50, image.digest()]);
        self.line(|| format!("POWER CUT of broker {broker}: {kept} sectors kept, {lost} lost"));
        let has_rotted = self.machines[broker].has_rotted;
        let checked = self.checks.on_power_cut(broker, has_rotted, image.contents());
        self.check(checked);
        self.end_streams_of(broker, false);
        self.pump_everything();
    }

    pub(super) fn plan_power_cut(&mut self, broker: usize, due: DueCut) {
        let Some(life) = self.machines[broker].life() else { return };
        self.machines[broker].due_cut = Some(due);
        // An idle disk completes nothing: the cut comes anyway.
        self.after(30_000_000, Action::PowerCut { broker, life });
    }

    pub(super) fn overdue_power_cut(&mut self, broker: usize, life: u64) {
        if self.machines[broker].life() == Some(life)
            && let Some(due) = self.machines[broker].due_cut
        {
            self.power_cut(broker, due.style);
            self.after(due.down, Action::Start { broker });
        }
    }

    /// True if the power has just failed.
    pub(super) fn count_down_to_power_cut(&mut self, broker: usize) -> bool {
        match &mut self.machines[broker].due_cut {
            Some(DueCut { left: 0, style, down }) => {
                let (style, down) = (*style, *down);
                self.power_cut(broker, style);
                self.after(down, Action::Start { broker });
                true
            }
            Some(due) => {
                due.left -= 1;
                false
            }
            None => false,
        }
    }

    pub(super) fn pause(&mut self, broker: usize, length: u64) {
        let until = self.now + length;
        let machine = &mut self.machines[broker];
        if machine.process.is_none() || machine.paused_until.is_some() {
            return;
        }
        machine.paused_until = Some(until);
        self.tally.one("pauses");
        self.after(length, Action::Resume { broker, until });
    }

    pub(super) fn resume(&mut self, broker: usize, until: u64) {
        if self.machines[broker].paused_until == Some(until) {
            self.machines[broker].paused_until = None;
            self.line(|| format!("broker {broker} goes on"));
            for action in std::mem::take(&mut self.machines[broker].held) {
                self.after(0, action);
            }
            self.pump_everything();
        }
    }

    pub(super) fn stop_broker(&mut self, broker: usize) {
        if !self.machines[broker].is_ready() || self.machines[broker].paused_until.is_some() {
            return;
        }
        self.tally.one("stops in good order");
        let Some(process) = &mut self.machines[broker].process else { return };
        process.is_stopping = true;
        for shard in 0..process.shards.len() {
            self.step(broker, shard, Event::Stop);
        }
    }
}
