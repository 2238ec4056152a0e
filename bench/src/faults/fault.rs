//! What is done to a broker, and undone.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use corelog::{BrokerId, Client, ClusterStatusReply, Operation, plan_removal};
use corelog_broker::random::Random;

use super::cluster::Cluster;
use crate::history::Partition;

const OPERATION_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A broker is stopped in good order (SIGTERM), and started again.
    Restart,
    /// Another broker is to lead a lane that this one leads.
    Transfer,
    /// It is to lead nothing, and then may again.
    Drain,
    /// A new broker joins, gets all copies that this one has, and this one is removed and stopped.
    Replace,
    Kill,
    Pause,
    /// One broker and the others hear nothing of each other.
    Cut,
    /// It hears them, and they do not hear it.
    Mute,
    /// They hear it, and it does not hear them.
    Deaf,
}

impl Kind {
    pub const PLANNED: [Self; 4] = [Self::Restart, Self::Transfer, Self::Drain, Self::Replace];
    pub const ALL: [Self; 9] = [
        Self::Restart,
        Self::Transfer,
        Self::Drain,
        Self::Replace,
        Self::Kill,
        Self::Pause,
        Self::Cut,
        Self::Mute,
        Self::Deaf,
    ];

    /// An operator does it: nothing may be lost by it, at any level, and no producer is told of an error.
    pub fn is_planned(self) -> bool {
        Self::PLANNED.contains(&self)
    }
}

/// What was done to whom, and when.
pub struct Fault {
    pub kind: Kind,
    /// What it led.
    pub led: Vec<Partition>,
    pub from: u64,
    pub until: u64,
}

/// Does it and undoes it.
pub fn inflict(
    kind: Kind,
    broker: usize,
    cluster: &mut Cluster,
    operator: &Client,
    random: &mut Random,
) -> io::Result<()> {
    let mut others = cluster.members();
    others.retain(|at| *at != broker);
    let number = BrokerId(cluster.number(broker));
    match kind {
        Kind::Restart => {
            cluster.stop(broker)?;
            cluster.start(broker)
        }
        Kind::Transfer => transfer(operator, number, random),
        Kind::Drain => {
            carry_out(operator, &Operation::Drain { broker: number })?;
            sleep_between(random, 0, 1000);
            carry_out(operator, &Operation::Undrain { broker: number })
        }
        Kind::Replace => {
            let joined = cluster.add()?;
            replace(operator, number, BrokerId(cluster.number(joined)))?;
            cluster.retire(broker)
        }
        Kind::Kill => {
            cluster.kill(broker)?;
            // Sometimes it is back before anybody has noticed.
            let longest = if random.below(3) == 0 { 300 } else { 3000 };
            sleep_between(random, 0, longest);
            cluster.start(broker)
        }
        Kind::Pause => {
            cluster.pause(broker, true)?;
            sleep_between(random, 1000, 3000);
            cluster.pause(broker, false)
        }
        Kind::Cut | Kind::Mute | Kind::Deaf => {
            for is_cut in [true, false] {
                for &other in &others {
                    if kind != Kind::Deaf {
                        cluster.network.cut(broker, other, is_cut)?;
                    }
                    if kind != Kind::Mute {
                        cluster.network.cut(other, broker, is_cut)?;
                    }
                }
                if is_cut {
                    sleep_between(random, 500, 4000);
                }
            }
            Ok(())
        }
    }
}

/// Of a lane that the broker leads, if it leads any, to any other that has a replica of it.
fn transfer(operator: &Client, broker: BrokerId, random: &mut Random) -> io::Result<()> {
    let mut pick = |count: usize| random.below(count.max(1) as u64) as usize;
    let status = operator.admin().timeout(OPERATION_MAX).cluster().map_err(io::Error::other)?;
    let led: Vec<_> = status.lanes.iter().filter(|lane| lane.leader == Some(broker)).collect();
    let Some(lane) = led.get(pick(led.len())) else { return Ok(()) };
    let mut others: Vec<_> = lane.replicas.iter().map(|replica| replica.broker).collect();
    others.retain(|other| *other != broker);
    let Some(&to) = others.get(pick(others.len())) else { return Ok(()) };
    carry_out(operator, &Operation::Transfer { lane: lane.lane, to })
}

/// All that `old` has goes to `new`, as soon as that is there, and then `old` belongs to the cluster no more.
fn replace(operator: &Client, old: BrokerId, new: BrokerId) -> io::Result<()> {
    let admin = operator.admin().timeout(OPERATION_MAX);
    let limit = Instant::now() + OPERATION_MAX;
    let is_there = |status: &ClusterStatusReply| {
        status.broker(new).is_some_and(|broker| broker.is_alive == Some(true))
    };
    while !admin.cluster().is_ok_and(|status| is_there(&status)) {
        if Instant::now() > limit {
            return Err(io::Error::other(format!("broker {new} has not joined")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let done =
        admin.carry_out_plan(|status| plan_removal(status, old, &[new]), OPERATION_MAX, |_| {});
    done.map(drop).map_err(|error| io::Error::other(format!("replace {old} by {new}: {error}")))
}

fn carry_out(operator: &Client, operation: &Operation) -> io::Result<()> {
    let admin = operator.admin().timeout(OPERATION_MAX);
    let done = admin.carry_out(operation, OPERATION_MAX, |_, _| {});
    done.map(drop).map_err(|error| io::Error::other(format!("{operation:?}: {error}")))
}

pub fn sleep_between(random: &mut Random, least: u64, most: u64) {
    std::thread::sleep(Duration::from_millis(least + random.below(most - least + 1)));
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Restart => "stop and start",
            Self::Transfer => "take a lane from",
            Self::Drain => "drain",
            Self::Replace => "put a new one in the place of",
            Self::Kill => "kill -9 of",
            Self::Pause => "freeze",
            Self::Cut => "cut off",
            Self::Mute => "drop what others get from",
            Self::Deaf => "drop what reaches",
        })
    }
}
