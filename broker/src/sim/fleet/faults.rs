//! What goes wrong, when its time has come.

use super::World;
use super::machine::DueCut;
use crate::sim::fleet::Action;
use crate::sim::fleet::plan::{CutWay, FaultKind};

impl World {
    pub(super) fn on_fault(&mut self, fault: FaultKind) {
        if self.ending.has_begun() {
            return;
        }
        self.tally.one(fault.name());
        self.line(|| format!("FAULT {fault:?}"));
        match fault {
            FaultKind::Kill { broker, down, shards } => {
                self.machines[broker].shards_next = shards;
                if self.machines[broker].process.is_some() {
                    self.kill(broker);
                    self.after(down, Action::Start { broker });
                }
            }
            FaultKind::PowerCut { broker, style, after, down, shards } => {
                self.machines[broker].shards_next = shards;
                self.plan_power_cut(broker, DueCut { left: after, style, down });
            }
            FaultKind::AimedCut(aimed) => self.aimed.push(aimed),
            FaultKind::Rot { broker, places } => self.rot(broker, places),
            FaultKind::PowerCutAll { style, down } => {
                self.tally.one("power losses of all");
                for broker in 0..self.plan.brokers {
                    self.power_cut(broker, style);
                    let later = self.random.below(down.max(1));
                    self.after(1 + later, Action::Start { broker });
                }
            }
            FaultKind::Pause { broker, length } => self.pause(broker, length),
            FaultKind::Restart { broker, shards } => {
                self.machines[broker].shards_next = shards;
                self.stop_broker(broker);
            }
            FaultKind::StallDisk { broker, length } => {
                self.machines[broker].stalled_until = self.now + length;
            }
            FaultKind::SlowDisk { broker, times, length } => {
                self.machines[broker].slow = (times, self.now + length);
            }
            FaultKind::Cut { from, to, way, length } => {
                self.tally.one(way_name(way));
                let ways = Self::ways_between(from, std::iter::once(to), way, false);
                self.cut(ways, length);
            }
            FaultKind::Isolate { broker, way, is_inward, with_clients, length } => {
                self.tally.one(way_name(way));
                let clients = if with_clients { self.clients.len() } else { 0 };
                let others = 0..self.plan.brokers + clients;
                let ways = Self::ways_between(broker, others, way, is_inward);
                self.cut(ways, length);
            }
            FaultKind::CutClients { broker, length } => {
                self.tally.one("partial partitions");
                let others = self.plan.brokers..self.plan.brokers + self.clients.len();
                let ways = Self::ways_between(broker, others, CutWay::Both, false);
                self.cut(ways, length);
            }
            FaultKind::Reset { broker, share } => {
                for stream in 0..self.streams.len() {
                    let state = &self.streams[stream];
                    let has = state.ends.iter().any(|end| end.host == broker);
                    if has && !state.is_over() && self.random.chance(share, 100) {
                        self.reset_stream(stream);
                    }
                }
            }
            FaultKind::FailDials { broker, length } => {
                self.network.dials_fail_until.insert(broker, self.now + length);
            }
            FaultKind::WallJump { broker, millis } => {
                self.machines[broker].wall_offset_ms += millis;
            }
        }
    }
}

fn way_name(way: CutWay) -> &'static str {
    match way {
        CutWay::Both => "cuts",
        CutWay::OneWay => "one-way cuts",
    }
}
