//! Making and changing topics, and asking about them; planned changes of the cluster.

use super::Inner;
use super::signal::Signal;
use crate::engine::{AdminReply, AdminRequest, PartitionOffsets, Position};
use crate::{
    ClusterStatusReply, Error, NoPlan, Operation, Standing, StatusReply, TopicChanges, TopicInfo,
    TopicSettings, TopicSummary, standing,
};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Makes topics, asks about them, and carries out planned changes of a cluster. Every call blocks, at most for its timeout.
#[derive(Clone, Debug)]
pub struct Admin {
    inner: Arc<Inner>,
    timeout: Duration,
}

/// How far a plan is.
#[derive(Clone, Copy, Debug)]
pub struct PlanProgress<'a> {
    /// What is left, the step that is under way or about to begin first.
    pub steps: &'a [Operation],
    pub status: &'a ClusterStatusReply,
    /// Of the first step.
    pub standing: &'a Standing,
}

impl Admin {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, timeout: Duration::from_secs(30) }
    }

    /// How long a call may take. Default 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes a topic with these many partitions that keeps its data for ever.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<TopicInfo, Error> {
        let settings =
            TopicSettings { partitions, replicas: 0, retention_ms: None, retention_bytes: None };
        self.create_topic_with(name, settings)
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn create_topic_with(
        &self,
        name: &str,
        settings: TopicSettings,
    ) -> Result<TopicInfo, Error> {
        match self.ask(AdminRequest::CreateTopic { name: name.to_owned(), settings })? {
            AdminReply::Created(topic) => Ok(topic),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn list_topics(&self) -> Result<Vec<TopicSummary>, Error> {
        match self.ask(AdminRequest::ListTopics)? {
            AdminReply::Topics(topics) => Ok(topics),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// A topic's settings, and where its partitions live.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn describe_topic(&self, name: &str) -> Result<TopicInfo, Error> {
        match self.ask(AdminRequest::DescribeTopic { name: name.to_owned() })? {
            AdminReply::Topic(topic) => Ok(topic),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// Changes a topic while it is in use: what `changes` gives, and nothing else. The answer is the
    /// topic as it is from then on, on every core of the broker.
    ///
    /// The number of partitions can only grow. Records stay where they are, and a key may go to another
    /// partition from then on. Clients that are connected send to the new partitions once they ask
    /// about the topic again: this one at once, others when they connect anew.
    ///
    /// # Errors
    /// [`Error::UnknownTopic`]; the broker's refusal (`InvalidConfig` for fewer partitions or a
    /// value out of bounds); or what kept it from being asked.
    pub fn alter_topic(&self, name: &str, changes: TopicChanges) -> Result<TopicInfo, Error> {
        match self.ask(AdminRequest::AlterTopic { name: name.to_owned(), changes })? {
            AdminReply::Altered(topic) => Ok(topic),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// Deletes a topic and its data.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.ask(AdminRequest::DeleteTopic { name: name.to_owned() }).map(drop)
    }

    /// The bounds of a partition, and the offset of a position in it.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn offsets(
        &self,
        topic: &str,
        partition: u32,
        at: Position,
    ) -> Result<PartitionOffsets, Error> {
        let topic = topic.to_owned();
        match self.ask(AdminRequest::Offsets { topic, partition, at })? {
            AdminReply::Offsets(offsets) => Ok(offsets),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// The broker's counters whose names start with `prefix`, by shard.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn status(&self, prefix: &str) -> Result<StatusReply, Error> {
        match self.ask(AdminRequest::Status { prefix: prefix.to_owned() })? {
            AdminReply::Status(status) => Ok(status),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// Brokers and lanes of the cluster, as the broker that answers knows them.
    ///
    /// # Errors
    /// The broker's refusal, or what kept it from being asked.
    pub fn cluster(&self) -> Result<ClusterStatusReply, Error> {
        match self.ask(AdminRequest::Cluster)? {
            AdminReply::Cluster(status) => Ok(status),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// Whether an operation could be done now. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Obstructed`] says what is in the way; the broker's refusal; or what kept it from being asked.
    pub fn check(&self, operation: &Operation) -> Result<(), Error> {
        let operation = operation.clone();
        self.ask(AdminRequest::Operate { operation, check_only: true }).map(drop)
    }

    /// Begins an operation. It is done when a status of the returned version or a later one shows it: see
    /// [`standing`]. [`Self::carry_out`] does all of that.
    ///
    /// # Errors
    /// [`Error::Obstructed`] says what is in the way; the broker's refusal; or what kept it from being asked.
    pub fn operate(&self, operation: &Operation) -> Result<u64, Error> {
        let operation = operation.clone();
        match self.ask(AdminRequest::Operate { operation, check_only: false })? {
            AdminReply::Operated(version) => Ok(version),
            _ => Err(Error::Protocol("an answer of the wrong kind")),
        }
    }

    /// Begins an operation and returns when it is done. What is in its way and passes by itself is waited for, and what
    /// was taken back is begun again, both for `patience` at most. `told` hears each status that shows it under way.
    ///
    /// # Errors
    /// [`Error::Obstructed`] says what was in the way all the time, [`Error::Unfinished`] which lanes are left of what was
    /// begun; the broker's refusal; or what kept it from being asked.
    pub fn carry_out(
        &self,
        operation: &Operation,
        patience: Duration,
        mut told: impl FnMut(&ClusterStatusReply, &Standing),
    ) -> Result<ClusterStatusReply, Error> {
        const POLL: Duration = Duration::from_millis(100);
        let until = Instant::now() + patience;
        let may_be_taken_back =
            matches!(operation, Operation::Transfer { .. } | Operation::Replace { .. });
        let mut left = None;
        loop {
            let version = match self.operate(operation) {
                Ok(version) => version,
                Err(error)
                    if error.may_retry() && error.is_definite() && Instant::now() < until =>
                {
                    thread::sleep(POLL);
                    continue;
                }
                // It was begun once: what was in the way of beginning again says less than that.
                Err(Error::Obstructed(obstacle)) if obstacle.is_passing() && left.is_some() => {
                    return Err(Error::Unfinished { lanes: left.unwrap_or_default() });
                }
                Err(error) => return Err(error),
            };
            loop {
                // It goes on without us: a broker that does not answer now says nothing about it.
                let status = self.cluster().ok().filter(|status| status.version >= version);
                let standing = status.as_ref().map(|status| standing(operation, status));
                match (status, standing) {
                    (Some(status), Some(Standing::Done)) => return Ok(status),
                    (Some(status), Some(standing)) => {
                        told(&status, &standing);
                        match standing {
                            Standing::UnderWay { lanes } => left = Some(lanes),
                            Standing::TakenBack if !may_be_taken_back => {
                                // Somebody has ordered the opposite since.
                                return Err(Error::Unfinished { lanes: Vec::new() });
                            }
                            Standing::TakenBack if Instant::now() < until => break,
                            Standing::TakenBack | Standing::Done => {}
                        }
                    }
                    _ => {}
                }
                if Instant::now() >= until {
                    return Err(Error::Unfinished { lanes: left.unwrap_or_default() });
                }
                thread::sleep(POLL);
            }
        }
    }

    /// Carries out the first step of a plan, makes the plan anew of what has come of it, and so on until nothing is left to
    /// do. What is under way already is waited for and not begun again, so an interrupted plan goes on. Each step may take
    /// `patience`; what is in the way of one and does not pass by itself is waited for 3 s at most.
    ///
    /// `told` hears each step before it, and each status that shows it under way.
    ///
    /// # Errors
    /// [`Error::NoPlan`]; or what kept a step from being done, as in [`Self::carry_out`]. The steps before are done.
    pub fn carry_out_plan(
        &self,
        plan: impl Fn(&ClusterStatusReply) -> Result<Vec<Operation>, NoPlan>,
        patience: Duration,
        mut told: impl FnMut(&PlanProgress<'_>),
    ) -> Result<ClusterStatusReply, Error> {
        const POLL: Duration = Duration::from_millis(100);
        const OBSTACLE_PATIENCE: Duration = Duration::from_secs(3);
        // The step that was first last time, and since when it is.
        let mut first: Option<Operation> = None;
        let mut since = Instant::now();
        let mut obstructed_since: Option<Instant> = None;
        // Another broker may know less than the one before.
        let mut version = 0;
        loop {
            let status = match self.cluster() {
                Ok(status) if status.version >= version => status,
                Err(error) if !error.may_retry() || since.elapsed() >= patience => {
                    return Err(error);
                }
                _ => {
                    thread::sleep(POLL);
                    continue;
                }
            };
            version = status.version;
            // Of a broker that is gone there is no plan any more.
            let is_removal = matches!(first, Some(Operation::Remove { .. }));
            if is_removal
                && first.as_ref().is_some_and(|it| standing(it, &status) == Standing::Done)
            {
                return Ok(status);
            }
            let steps = match plan(&status) {
                Ok(steps) => steps,
                Err(NoPlan::NobodyKnows | NoPlan::LoadNotKnown { .. })
                    if since.elapsed() < patience =>
                {
                    thread::sleep(POLL);
                    continue;
                }
                Err(why) => return Err(Error::NoPlan(why)),
            };
            let Some(step) = steps.first() else { return Ok(status) };
            if first.as_ref() != Some(step) {
                first = Some(step.clone());
                since = Instant::now();
                obstructed_since = None;
            }
            let left = patience.saturating_sub(since.elapsed());
            let now = standing(step, &status);
            told(&PlanProgress { steps: &steps, status: &status, standing: &now });
            if matches!(now, Standing::UnderWay { .. }) {
                if left.is_zero() {
                    return Err(Error::Unfinished { lanes: Vec::new() });
                }
                thread::sleep(POLL);
                continue;
            }
            let done = self.carry_out(step, left, |status, standing| {
                told(&PlanProgress { steps: &steps, status, standing });
            });
            match done {
                Ok(after) => {
                    version = version.max(after.version);
                    obstructed_since = None;
                }
                // Another leader, say, or a target that is gone: the next plan may have another step.
                Err(Error::Obstructed(obstacle)) => {
                    let since = obstructed_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= OBSTACLE_PATIENCE {
                        return Err(Error::Obstructed(obstacle));
                    }
                    thread::sleep(POLL);
                }
                // Whether it was begun shows the next status.
                Err(error) if error.may_retry() && !left.is_zero() => thread::sleep(POLL),
                Err(error) => return Err(error),
            }
        }
    }

    fn ask(&self, request: AdminRequest) -> Result<AdminReply, Error> {
        let signal = Arc::new(Signal::default());
        let mut step = self.inner.shared.step();
        let now = step.now;
        let core = &mut *step.core;
        let deadline = now.monotonic.after(self.timeout.as_nanos() as u64);
        let id = core.engine.request(now, request, deadline, &mut core.effects);
        core.requests.insert(id, Arc::clone(&signal));
        step.finish();
        signal.wait_until(None).unwrap_or(Err(Error::Closed))
    }
}
