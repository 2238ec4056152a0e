//! What the leader of the metadata knows of brokers and replicas, told to whoever asks any broker.
//!
//! ```text
//! user → any shard → shard 0 → PeerSurvey(token) → leader
//!      ← view of this broker, with what the leader said ← PeerSurveyReply(token)
//! ```
//! Without a leader, or if it does not answer within a second, the answer has what this broker knows itself.

use corelog_protocol::frame::FrameKind;
use corelog_protocol::ids::{BrokerId, ShardId};

use super::asked::Wanted;
use crate::memory::Memory;
use crate::metadata::survey::{Survey, decode_question, encode_question};
use crate::shard::lane::Origin;
use crate::shard::message::Answer;
use crate::shard::{Cx, Shard};

impl Shard {
    /// Somebody wants to know how brokers and lanes are.
    pub(in crate::shard) fn survey_cluster<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
    ) {
        let own = self.own_survey();
        let leader = self.keeper.as_ref().and_then(|keeper| keeper.leader_elsewhere());
        if let (None, Some(leader), Some(keeper)) = (&own, leader, &mut self.keeper)
            && !keeper.asked.is_full()
        {
            let token = keeper.asked.add(leader, origin, Wanted::Survey);
            let question = encode_question(token);
            if self.send_peer(cx, leader, ShardId(0), FrameKind::PeerSurvey, &question, &[]) {
                return;
            }
            if let Some(keeper) = &mut self.keeper {
                keeper.asked.close(token, leader, Wanted::Survey);
            }
        }
        self.tell_cluster(cx, origin, own.as_ref());
    }

    /// What this broker hears as the leader of the metadata, if it is that.
    fn own_survey(&self) -> Option<Survey> {
        let keeper = self.keeper.as_ref().filter(|keeper| keeper.is_leading())?;
        Some(keeper.failover.as_ref()?.survey(&keeper.state, keeper.group_time()))
    }

    /// Answers with the view of this broker, and with what the leader of the metadata knows, if that was told.
    pub(super) fn tell_cluster<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        origin: Origin,
        survey: Option<&Survey>,
    ) {
        let me = self.config.broker;
        let leader = self.keeper.as_ref().and_then(|keeper| match keeper.is_leading() {
            true => Some(me),
            false => keeper.leader_elsewhere(),
        });
        let answer = Answer::Cluster(Box::new(self.cluster_status(leader, survey)));
        self.change_answered(cx, origin, answer);
    }

    /// Another broker asks what is known here.
    pub(in crate::shard) fn on_peer_survey<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
    ) {
        let Ok(token) = decode_question(control) else {
            self.counters.frames_malformed += 1;
            return;
        };
        // Who leads no more says nothing, and is not waited for long.
        if let Some(survey) = self.own_survey() {
            let kind = FrameKind::PeerSurveyReply;
            self.send_peer(cx, from, ShardId(0), kind, &survey.encode(token), &[]);
        }
    }

    pub(in crate::shard) fn on_peer_survey_reply<M: Memory>(
        &mut self,
        cx: &mut Cx<'_, M>,
        from: BrokerId,
        control: &[u8],
    ) {
        let Ok((token, survey)) = Survey::decode(control) else {
            self.counters.frames_malformed += 1;
            return;
        };
        let asked = self.keeper.as_mut().map(|keeper| &mut keeper.asked);
        let origin = asked.and_then(|asked| asked.close(token, from, Wanted::Survey));
        if let Some(origin) = origin {
            self.tell_cluster(cx, origin, Some(&survey));
        }
    }
}
