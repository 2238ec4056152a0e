//! The broker's counters, by name and shard.

use corelog_protocol::ids::ShardId;
use corelog_protocol::message::{COUNTERS_MAX, ShardCounters as WireCounters, StatusReply};

use super::event::Conn;
use super::{Cx, Shard};
use crate::log::LogCounters;
use crate::memory::Memory;
use crate::time::Monotonic;

impl Shard {
    pub(super) fn on_status_request<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        prefix: String,
    ) {
        if let Some(session) = self.sessions.answerable(conn) {
            session.requests += 1;
        }
        self.gather_status(cx, conn, correlation, prefix);
    }

    /// Visits all counters in the order that every shard of this version has.
    fn each_counter(
        &self,
        now: Monotonic,
        memory_used_bytes: u64,
        mut visit: impl FnMut(&str, u64),
    ) {
        visit("memory_used_bytes", memory_used_bytes);
        visit("memory_budget_bytes", self.config.memory_bytes as u64);
        visit("connections", u64::from(self.sessions.count()));
        visit("lanes", self.lanes.len() as u64);
        visit("partitions", self.partitions.count() as u64);
        visit("peer_links_up", self.peers.links_up());
        visit("fetches_open", self.fetches.len() as u64);
        // Of the last one to two minutes; 0 when there was no commit.
        visit("commit_write_p50_us", self.commit_writes.percentile_us(now, 500));
        visit("commit_write_p99_us", self.commit_writes.percentile_us(now, 990));
        visit("commit_flush_p50_us", self.commit_flushes.percentile_us(now, 500));
        visit("commit_flush_p99_us", self.commit_flushes.percentile_us(now, 990));
        self.counters.each(&mut visit);
        let mut log = LogCounters::default();
        self.lanes.iter().for_each(|lane| log.add(lane.log.counters()));
        for (name, value) in log.list() {
            visit(&format!("log_{name}"), value);
        }
    }

    pub(super) fn counter_values<M: Memory>(&self, cx: &Cx<'_, M>) -> Vec<u64> {
        let used = (cx.memory.used_bytes() + self.held_bytes) as u64;
        let mut values = Vec::new();
        self.each_counter(cx.now.monotonic, used, |_, value| values.push(value));
        values
    }

    pub(super) fn send_status<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        conn: Conn,
        correlation: u64,
        prefix: &str,
        mut shards: Vec<(ShardId, Vec<u64>)>,
    ) {
        let mut names = Vec::new();
        let mut places = Vec::new();
        let mut at = 0;
        self.each_counter(cx.now.monotonic, 0, |name, _| {
            if name.starts_with(prefix) && names.len() < COUNTERS_MAX {
                names.push(name.to_owned());
                places.push(at);
            }
            at += 1;
        });
        shards.sort_by_key(|(shard, _)| *shard);
        let pick = |values: Vec<u64>| {
            places.iter().map(|&at| values.get(at).copied().unwrap_or(0)).collect()
        };
        let shards = shards
            .into_iter()
            .map(|(shard, values)| WireCounters { shard, values: pick(values) })
            .collect();
        let uptime_ms = (cx.now.monotonic - self.started_at).as_millis();
        let reply = StatusReply { uptime_ms, names, shards };
        self.send_message(cx, conn, correlation, &reply);
    }
}
