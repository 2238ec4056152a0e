//! Every planted error is found. That nothing is found without one is what the explorations show.

use corelog_model::planted::Planted;
use corelog_model::search::shortest;

fn is_found(planted: Planted) {
    let (property, path) =
        shortest(planted.bounds()).unwrap_or_else(|| panic!("{planted:?} was not found"));
    println!("{planted:?}: {} steps to \"{property}\"", path.into_actions().len());
}

macro_rules! found {
    ($($name:ident: $planted:ident,)*) => {
        $(
            #[test]
            fn $name() {
                is_found(Planted::$planted);
            }
        )*

        #[test]
        fn every_planted_error_has_a_test() {
            assert_eq!(Planted::ALL, [$(Planted::$planted),*]);
        }
    };
}

found! {
    a_follower_that_acknowledges_before_it_matched: AckBeforeMatch,
    a_promise_that_is_not_durable_before_the_answer: PromiseNotDurable,
    a_fenced_leader_that_counts_a_flush_in_flight: FencedLeaderCounts,
    an_ack_of_a_lower_epoch_after_the_promise: LateAck,
    a_commit_through_an_entry_of_an_older_epoch: CommitOlderEpoch,
    a_leader_chosen_by_lsn_alone: GreatestLsn,
    a_hole_taken_for_the_end_of_the_log: HoleIsEnd,
    an_undecided_entry_settled_by_lsn_alone: UndecidedByLsn,
    an_undecided_entry_held_to_be_of_the_epoch_below: UndecidedOfEpochBelow,
    a_lane_that_waits_for_ever_because_all_tails_are_torn: OnlyIntactQuorumDrops,
    a_mark_dropped_before_its_replacement_is_durable: MarkDroppedBeforeRepair,
    a_change_of_the_set_with_a_quorum_of_the_new_one_only: NewSetOnly,
    an_old_set_forgotten_before_the_new_one_has_all: OldSetForgottenAtOnce,
    a_learner_that_counts: LearnerCounts,
    a_replica_without_memory_that_counts: AmnesiaCounts,
    a_second_proposal_for_an_epoch: TwoProposals,
    an_ack_before_the_truncation_is_durable: TruncationNotDurable,
    an_accepted_epoch_recorded_before_its_truncation: AcceptedBeforeTruncation,
    a_truncation_of_what_is_equal: TruncatesEqual,
    a_leader_that_leads_on_after_a_restart: LeaderResumes,
    a_leader_that_begins_from_less_than_it_was_named_for: BeginsFromLess,
    a_leader_that_begins_below_its_promise: BeginsBelowPromise,
}
