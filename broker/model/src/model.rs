//! The protocol as a [`stateright::Model`]: which steps are possible in a state, and what each does.

use stateright::{Model, Property};

use crate::action::Action;
use crate::config::Config;
use crate::log::Slot;
use crate::state::{Role, State};
use crate::{authority, faults, leader, properties, repair, replica};

/// One lane under one set of bounds.
#[derive(Clone, Copy, Debug)]
pub struct Lane(pub Config);

impl Model for Lane {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::first(&self.0)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let count = state.replicas.len();
        if authority::may_enter(state, &self.0) {
            actions.push(Action::Enter);
        }
        if state.changes > 0 {
            let pairs = (0..count).flat_map(|out| (0..count).map(move |joiner| (out, joiner)));
            let possible =
                pairs.filter(|&(out, joiner)| authority::may_change(state, &self.0, out, joiner));
            actions.extend(possible.map(|(out, joiner)| Action::Change { out, joiner }));
        }
        if authority::may_settle(state) {
            actions.push(Action::Settle);
        }
        for who in 0..count {
            self.steps_in_a_fence(state, who, actions);
            self.steps_in_an_epoch(state, who, actions);
            self.faults(state, who, actions);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let config = &self.0;
        let mut next = last.clone();
        let state = &mut next;
        match action {
            Action::Enter => authority::enter(state),
            Action::Change { out, joiner } => authority::change(state, config, out, joiner),
            Action::Promise { who, epoch } => replica::promise(state, config, who, epoch),
            Action::Answer { who } => {
                let answer = replica::answer(state, config, who)?;
                replica::give(state, who, answer);
            }
            Action::Name { who, position } => authority::name(state, config, who, position),
            Action::Settle => authority::settle(state),
            Action::Begin { who } => leader::begin(state, config, who),
            Action::Append { who } => leader::append(state, who),
            Action::Match { who } => replica::match_leader(state, config, who),
            Action::Receive { who } => replica::receive(state, who),
            Action::Flush { who } => replica::flush(state, config, who),
            Action::SyncTruncation { who } => replica::sync_truncation(state, config, who),
            Action::Repair { who, lsn } => repair::repair(state, config, who, lsn),
            Action::Fetch { who, from } => repair::fetch(state, config, who, from),
            Action::Fill { who, from } => repair::fill(state, who, from),
            Action::Crash { who, left } => faults::crash(state, config, who, left),
            Action::Rot { who, lsn } => faults::rot(state, who, lsn),
            Action::Wipe { who } => faults::wipe(state, config, who),
        }
        next.tidy();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Lane>> {
        properties::all(&self.0)
    }
}

impl Lane {
    fn steps_in_a_fence(&self, state: &State, who: usize, actions: &mut Vec<Action>) {
        let config = &self.0;
        for epoch in 1..=state.epoch {
            if replica::may_promise(state, config, who, epoch) {
                actions.push(Action::Promise { who, epoch });
            }
        }
        if let Some(answer) = replica::answer(state, config, who)
            && !state.replicas[who].answers.contains(&answer)
        {
            actions.push(Action::Answer { who });
        }
        let mut last = None;
        for answer in &state.replicas[who].answers {
            if last != Some(answer.has) && authority::may_name(state, config, who, answer.has) {
                actions.push(Action::Name { who, position: answer.has });
            }
            last = Some(answer.has);
        }
        for from in (0..state.replicas.len()).filter(|&from| from != who) {
            if repair::may_fetch(state, config, who, from) {
                actions.push(Action::Fetch { who, from });
            }
            if repair::may_fill(state, who, from).is_some() {
                actions.push(Action::Fill { who, from });
            }
        }
    }

    fn steps_in_an_epoch(&self, state: &State, who: usize, actions: &mut Vec<Action>) {
        let log = &state.replicas[who].log;
        if leader::may_begin(state, &self.0, who) {
            actions.push(Action::Begin { who });
        }
        if leader::may_append(state, &self.0, who) {
            actions.push(Action::Append { who });
        }
        if replica::may_match(state, who) {
            actions.push(Action::Match { who });
        }
        if replica::may_receive(state, who) {
            actions.push(Action::Receive { who });
        }
        if log.iter().any(Slot::is_volatile) {
            actions.push(Action::Flush { who });
        }
        if state.replicas[who].undone.is_some() {
            actions.push(Action::SyncTruncation { who });
        }
        for lsn in 1..=log.len() {
            if repair::replacement(state, who, lsn).is_some() {
                actions.push(Action::Repair { who, lsn });
            }
        }
    }

    fn faults(&self, state: &State, who: usize, actions: &mut Vec<Action>) {
        let replica = &state.replicas[who];
        let may_lose = replica.role != Role::Waiting
            || replica.undone.is_some()
            || replica.promised != replica.promised_durably
            || replica.log.iter().any(Slot::is_volatile);
        if state.crashes > 0 && may_lose {
            let left = faults::remains(replica, &self.0);
            actions.extend(left.into_iter().map(|left| Action::Crash { who, left }));
        }
        if state.rots > 0 {
            let durable = (1..=replica.log.len())
                .filter(|&lsn| matches!(replica.log.at(lsn), Slot::Durable(_)));
            actions.extend(durable.map(|lsn| Action::Rot { who, lsn }));
        }
        if state.wipes > 0 && !replica.wiped && !replica.log.is_empty() {
            actions.push(Action::Wipe { who });
        }
    }
}
