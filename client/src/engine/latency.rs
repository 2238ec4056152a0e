//! Between the records on their way and the objective: what is measured, and what follows at once.

use super::objective::Sample;
use super::produce::Due;
use super::time::{Monotonic, Now};
use super::{Effect, Effects, Engine, ObjectiveState};

impl<T> Engine<T> {
    /// A batch reached its level.
    pub(super) fn note_latency(
        &mut self,
        records: u64,
        deadline: Monotonic,
        sent_at: Monotonic,
        is_full: bool,
    ) {
        let age = self.age_at(deadline);
        if let Some(objective) = &mut self.objective {
            let service = self.clock.since(sent_at);
            objective.on_delivered(Sample { records, age, service, is_full });
        }
    }

    /// How long ago a batch began whose delivery deadline is this.
    fn age_at(&self, deadline: Monotonic) -> u64 {
        let left = deadline.since(self.clock);
        self.config.producer.delivery_nanos_max.saturating_sub(left)
    }

    /// The age of the oldest record under way.
    fn oldest_age(&mut self) -> Option<u64> {
        while let Some(&(_, due)) = self.producer.deadlines.front()
            && self.is_settled(due)
        {
            self.producer.deadlines.pop_front();
        }
        let (deadline, due) = *self.producer.deadlines.front()?;
        let began = match due {
            Due::Batch { .. } => deadline,
            Due::Pending { topic } => {
                self.topics[topic].pending.front().map_or(deadline, |pending| pending.deadline)
            }
        };
        Some(self.age_at(began))
    }

    pub(super) fn judge_objective(&mut self, now: Now, effects: &mut Effects<T>) {
        let due = self.objective.as_ref().and_then(|objective| objective.due());
        if due.is_none_or(|due| due > now.monotonic) {
            return;
        }
        let oldest = self.oldest_age();
        let Some(objective) = &mut self.objective else { return };
        let before = objective.linger();
        let is_news = objective.judge(now.monotonic, oldest);
        let (linger, report) = (objective.linger(), objective.report());
        if linger < before {
            // Nothing that lingers now lingers longer than what comes.
            let latest = now.monotonic.after(linger);
            for (at, ..) in &mut self.producer.lingering {
                *at = (*at).min(latest);
            }
        }
        if is_news {
            match report.state {
                ObjectiveState::Infeasible => tracing::warn!(
                    goal = ?report.goal, p99 = ?report.p99, rate = report.records_per_second,
                    "the producer's objective is infeasible at this load"
                ),
                _ => {
                    tracing::info!(goal = ?report.goal, p99 = ?report.p99, "the objective is met again")
                }
            }
            effects.push(Effect::Objective(report));
        }
    }
}
