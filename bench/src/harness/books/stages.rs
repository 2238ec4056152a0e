//! Where the broker says that the time of a message went, of the partitions that one core has.

use corelog_protocol::produce::StageTimes;

use crate::latency::Latencies;

/// In the order in which a message goes through them. The last one is what is left of its service time: the client, the
/// network, and the broker's kernel.
pub const STAGES: [&str; 9] =
    ["socket", "queue", "append", "write", "flush", "replicate", "quorum", "reply", "outside"];

#[derive(Clone, Default)]
pub struct ShardStages {
    pub service: Latencies,
    stages: [Latencies; STAGES.len()],
}

impl ShardStages {
    pub fn record(&mut self, service: u64, told: &StageTimes) {
        self.service.record_nanos(service);
        let mut rest = service;
        let (outside, inside) = self.stages.split_last_mut().expect("there are nine");
        for (stage, nanos) in inside.iter_mut().zip(told.to_array()) {
            stage.record_nanos(u64::from(nanos));
            rest = rest.saturating_sub(u64::from(nanos));
        }
        outside.record_nanos(rest);
    }

    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Latencies)> {
        STAGES.into_iter().zip(&self.stages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_broker_does_not_account_for_is_outside() {
        let mut stages = ShardStages::default();
        let told = StageTimes { write_ns: 60_000, flush_ns: 100_000, ..StageTimes::default() };
        stages.record(200_000, &told);
        let means: Vec<(&str, u64)> =
            stages.each().map(|(name, times)| (name, times.mean().round() as u64 / 1000)).collect();
        assert_eq!(means[3], ("write", 60));
        assert_eq!(means[4], ("flush", 100));
        assert_eq!(means[8], ("outside", 40));
    }
}
