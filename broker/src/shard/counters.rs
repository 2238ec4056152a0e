//! What a shard counts. Names are part of the product: they travel in the status reply.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counted since the shard started; never decreases.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ShardCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl ShardCounters {
            /// All counters with their names, in a fixed order.
            pub fn each(&self, mut visit: impl FnMut(&'static str, u64)) {
                $(visit(stringify!($name), self.$name);)*
            }
        }
    };
}

counters! {
    /// Calls of `step`.
    steps,
    connections_opened,
    connections_closed,
    /// Closed at once because of a connection limit.
    connections_refused,
    /// Closed because a hello or the rest of a frame did not come in time.
    connections_timed_out,
    /// Closed because a client did not read what it had asked for.
    connections_stalled,
    /// Bytes that are no frame of ours: the connection was closed.
    frames_garbled,
    frames_too_large,
    frames_unsupported,
    frames_malformed,
    frames_in,
    frames_out,
    bytes_in,
    bytes_out,
    sends,
    /// Batches appended.
    batches_in,
    records_in,
    batch_bytes_in,
    batches_invalid,
    batches_duplicate,
    batches_out_of_sequence,
    acks_out,
    errors_out,
    fetches,
    fetch_waits,
    /// Times that entries of a partition were served though another broker leads it, to readers that take any replica.
    follower_reads,
    fetch_bytes_out,
    requests_forwarded,
    /// Requests that other shards forwarded to this one.
    requests_adopted,
    requests_overloaded,
    requests_expired,
    /// Times that a connection had to wait because the lane was busy.
    lane_busy,
    turns,
    /// Connections to other brokers that were tried, that stood, and that were lost again.
    peer_dials,
    peer_links_made,
    peer_links_lost,
    /// Brokers that were not who they should be, here or at the other end.
    peer_hellos_refused,
    peer_frames_in,
    peer_frames_out,
    /// Not sent: there was no link, or too much waited on it.
    peer_frames_lost,
    /// Received, and of no use here.
    peer_frames_dropped,
    /// Answers of other brokers that they could not do with what they were sent.
    peer_errors,
    /// Lanes that began to be led here, and that are led here no more.
    lanes_begun,
    lanes_yielded,
    /// Lanes that came to this broker while it ran, and that went to others.
    lanes_adopted,
    lanes_parted,
    /// Logs of replicas that went on after a start, and that were cut back.
    lane_resumes,
    lane_truncations,
    /// Those that began anew, because their leaders' logs reach back no further.
    lane_rebuilds,
    /// Times that damage was found in the log of a replica while it ran, and something was done about it.
    repairs,
    /// Bytes of entries that followers were sent, and that came from leaders.
    copy_bytes_out,
    copy_bytes_in,
    /// Entries of a leader that break a rule.
    copies_refused,
    /// Replicas that do not take part because their vote cannot be read.
    votes_lost,
    metadata_commands,
    /// Lanes that were to be led by another broker because of their load.
    leaders_balanced,
    views_applied,
}
