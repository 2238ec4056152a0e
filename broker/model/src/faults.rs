//! What goes wrong: crashes that keep, tear or lose what was not flushed, entries that rot, disks that are lost.

use crate::config::Config;
use crate::log::{Log, Slot};
use crate::planted::Planted;
use crate::state::{Replica, Role, State};

/// Every log that a crash of `replica` can leave. It restarts at once: a replica that is down is one that does nothing.
pub(crate) fn remains(replica: &Replica, config: &Config) -> Vec<Log> {
    let log = replica.undone.map_or(replica.log, |before| before.log);
    let mut left = vec![Log::default()];
    // What was durable, and what was bad before, is there after the crash; above the last such slot the end may be anywhere.
    let sure =
        (1..=log.len()).rev().find(|&lsn| !matches!(log.at(lsn), Slot::Written(_))).unwrap_or(0);
    let mut all = if sure == 0 { left.clone() } else { Vec::new() };
    for lsn in 1..=log.len() {
        let mut longer = Vec::new();
        for shorter in &left {
            let kept: Vec<Slot> = match log.at(lsn) {
                Slot::Written(entry) if config.torn => vec![Slot::Durable(entry), Slot::Bad],
                Slot::Written(entry) => vec![Slot::Durable(entry)],
                Slot::Rewritten(entry) => vec![Slot::Durable(entry), Slot::Bad],
                slot => vec![slot],
            };
            for slot in kept {
                let mut log = *shorter;
                log.push(slot);
                longer.push(log);
            }
        }
        left = longer;
        if lsn >= sure {
            all.extend(&left);
        }
    }
    all
}

/// `who` crashes, and comes back with this log, its durable promise and no role.
pub(crate) fn crash(state: &mut State, config: &Config, who: usize, left: Log) {
    state.crashes -= 1;
    let replica = &mut state.replicas[who];
    replica.log = left;
    if let Some(before) = replica.undone.take()
        && !config.has(Planted::AcceptedBeforeTruncation)
    {
        replica.accepted = before.accepted;
    }
    replica.promised = replica.promised_durably;
    replica.role = Role::Waiting;
}

/// A durable entry of `who` can no longer be read.
pub(crate) fn rot(state: &mut State, who: usize, lsn: u8) {
    state.rots -= 1;
    state.replicas[who].log.set(lsn, Slot::Bad);
}

/// The disk of `who` is lost. A replica that is honest about it is never heard again under its id.
pub(crate) fn wipe(state: &mut State, config: &Config, who: usize) {
    state.wipes -= 1;
    let replica = &mut state.replicas[who];
    *replica = Replica {
        member: replica.member,
        member_before: replica.member_before,
        acked: replica.acked,
        answers: std::mem::take(&mut replica.answers),
        wiped: !config.has(Planted::AmnesiaCounts),
        ..Replica::default()
    };
}
