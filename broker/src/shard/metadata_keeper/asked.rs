//! Changes that are asked for on one broker and decided on another: the leader of the metadata's group proposes them,
//! and who asked is answered when its own shards know what came of it.
//!
//! ```text
//! user → follower → PeerChange(token) → leader proposes → committed: PeerChangeReply(token, version)
//!      ← answered when this version is in force on all shards of the follower
//! ```
//! A question whose answer does not come in time, or whose link is lost, may have been done or not: so it is said.

use std::collections::BTreeMap;

use corelog_protocol::ErrorCode;
use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::{Asker, NO_LEADER, outcome_answer};
use crate::limits::CHANGES_QUEUED_MAX;
use crate::memory::Memory;
use crate::metadata::state::Outcome;
use crate::metadata::{AskedChange, Change, ChangeReply, ChangeResult};
use crate::shard::lane::Origin;
use crate::shard::message::{Answer, Refusal};
use crate::shard::{Cx, Shard};

/// A question is given up after so many ticks of the group, 10 s.
const ASKED_TICKS_MAX: u32 = 200;

const LINK_LOST: Refusal =
    Refusal::new(ErrorCode::OutcomeUnknown, "the leader of the metadata was lost meanwhile");

/// A question for what it knows is given up after so many, 1 s.
const SURVEY_TICKS_MAX: u32 = 20;

/// What was asked of leaders and is not answered.
#[derive(Debug, Default)]
pub(super) struct Asked {
    open: BTreeMap<u64, Question>,
    next_token: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// A change of the metadata.
    Change,
    /// What the leader knows of brokers and replicas.
    Survey,
}

#[derive(Debug)]
struct Question {
    leader: BrokerId,
    origin: Origin,
    wanted: Wanted,
    ticks_left: u32,
}

impl Asked {
    /// Tokens begin with the life, so that a late answer to a question of the life before finds nothing.
    pub fn new(life: u64) -> Self {
        Self { open: BTreeMap::new(), next_token: life }
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.open.len() >= CHANGES_QUEUED_MAX
    }

    pub fn add(&mut self, leader: BrokerId, origin: Origin, wanted: Wanted) -> u64 {
        // 0 means that nobody waits.
        let token = self.next_token.max(1);
        self.next_token = token.wrapping_add(1);
        let ticks_left = match wanted {
            Wanted::Change => ASKED_TICKS_MAX,
            Wanted::Survey => SURVEY_TICKS_MAX,
        };
        self.open.insert(token, Question { leader, origin, wanted, ticks_left });
        token
    }

    /// Who asked this of that leader: it is answered, or was not sent.
    pub fn close(&mut self, token: u64, leader: BrokerId, wanted: Wanted) -> Option<Origin> {
        let question = self.open.get(&token)?;
        if question.leader != leader || question.wanted != wanted {
            return None;
        }
        self.open.remove(&token).map(|question| question.origin)
    }

    fn take(&mut self, is_over: impl Fn(&Question) -> bool) -> Vec<Question> {
        self.open.extract_if(.., |_, question| is_over(question)).map(|(_, one)| one).collect()
    }
}

impl Shard {
    /// Asks the leader of the metadata, if one is known and can be reached.
    pub(super) fn ask_leader<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        change: Change,
    ) {
        let Some(keeper) = &mut self.keeper else { return };
        let refusal = match keeper.leader_elsewhere() {
            Some(_) if keeper.asked.is_full() => crate::shard::replies::OVERLOADED,
            Some(leader) => {
                let token = keeper.asked.add(leader, origin, Wanted::Change);
                let body = AskedChange { token, change }.encode();
                if self.send_peer(cx, leader, ShardId(0), FrameKind::PeerChange, &body, &[]) {
                    return;
                }
                if let Some(keeper) = &mut self.keeper {
                    keeper.asked.close(token, leader, Wanted::Change);
                }
                NO_LEADER
            }
            None => NO_LEADER,
        };
        self.change_answered(cx, origin, Answer::Refused(refusal));
    }

    /// A change that somebody asked of the other broker.
    pub(in crate::shard) fn on_peer_change<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
    ) {
        let Ok(AskedChange { token, change }) = AskedChange::decode(control) else {
            self.counters.frames_malformed += 1;
            return;
        };
        let asker = Asker::Peer { broker: from, token };
        if let (0, Change::BrokerRegister { record }) = (token, &change)
            && self.on_registration_heard(cx, from, record)
        {
            return;
        }
        let refusal = match &self.keeper {
            Some(keeper) if !keeper.is_leading() => Some(NO_LEADER),
            _ => self.why_no_change(&change),
        };
        match (refusal, &mut self.keeper) {
            (None, Some(keeper)) => keeper.queue.push_back((asker, change)),
            (refusal, _) => self.refuse_change(cx, asker, refusal.unwrap_or(NO_LEADER)),
        }
    }

    /// What became of a change that was asked of the other broker.
    pub(in crate::shard) fn on_peer_change_reply<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
    ) {
        let Ok(ChangeReply { token, result }) = ChangeReply::decode(control) else {
            self.counters.frames_malformed += 1;
            return;
        };
        let Some(keeper) = &mut self.keeper else { return };
        let Some(origin) = keeper.asked.close(token, from, Wanted::Change) else { return };
        match result {
            ChangeResult::Decided { outcome, version } => {
                keeper.settle_later(version, origin, outcome_answer(outcome, version));
                self.settle_changes(cx);
            }
            ChangeResult::Refused { code, retry_after_ms } => {
                let message = "the leader of the metadata did not do it";
                let refusal = Refusal { code, retry_after_ms, message };
                self.change_answered(cx, origin, Answer::Refused(refusal));
            }
        }
    }

    /// It is known what a change comes to, though its command may not even be proposed.
    pub(super) fn change_decided<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        asker: Asker,
        outcome: Outcome,
    ) {
        let version = self.keeper.as_ref().map_or(0, |keeper| keeper.state.version());
        match asker {
            Asker::Here(origin) => {
                self.change_answered(cx, origin, outcome_answer(outcome, version));
            }
            Asker::Peer { broker, token } => {
                let result = ChangeResult::Decided { outcome, version };
                self.reply_to_peer(cx, broker, ChangeReply { token, result });
            }
        }
    }

    pub(super) fn refuse_change<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        asker: Asker,
        refusal: Refusal,
    ) {
        match asker {
            Asker::Here(origin) => self.change_answered(cx, origin, Answer::Refused(refusal)),
            Asker::Peer { broker, token } => {
                let Refusal { code, retry_after_ms, .. } = refusal;
                let result = ChangeResult::Refused { code, retry_after_ms };
                self.reply_to_peer(cx, broker, ChangeReply { token, result });
            }
        }
    }

    /// If it is lost, who asked finds out by the time that passes.
    pub(super) fn reply_to_peer<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        broker: BrokerId,
        reply: ChangeReply,
    ) {
        if reply.token > 0 {
            let kind = FrameKind::PeerChangeReply;
            self.send_peer(cx, broker, ShardId(0), kind, &reply.encode(), &[]);
        }
    }

    /// The link to a broker is lost, and with it perhaps what was asked.
    pub(super) fn give_up_asked_of<M: Memory>(&mut self, cx: &mut Cx<'_, M>, broker: BrokerId) {
        self.give_up_where(cx, |question| question.leader == broker);
    }

    /// A tick has passed.
    pub(super) fn expire_asked<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        let Some(keeper) = &mut self.keeper else { return };
        keeper.asked.open.values_mut().for_each(|question| question.ticks_left -= 1);
        self.give_up_where(cx, |question| question.ticks_left == 0);
    }

    /// Nothing will be heard any more.
    pub(super) fn give_up_asked<M: Memory>(&mut self, cx: &mut Cx<'_, M>) {
        self.give_up_where(cx, |_| true);
    }

    fn give_up_where<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        is_over: impl Fn(&Question) -> bool,
    ) {
        let Some(keeper) = &mut self.keeper else { return };
        for question in keeper.asked.take(is_over) {
            match question.wanted {
                Wanted::Change => {
                    self.change_answered(cx, question.origin, Answer::Refused(LINK_LOST));
                }
                // What this broker knows itself is an answer, too.
                Wanted::Survey => self.tell_cluster(cx, question.origin, None),
            }
        }
    }
}
