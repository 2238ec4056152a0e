//! What the log counts. The simulator prints these as coverage, the broker as metrics.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct LogCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl LogCounters {
            /// Name and value of each, in a fixed order.
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// Adds another log's counts to these.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    entries_appended,
    /// Taken from a leader.
    entries_copied,
    commits,
    commits_idle_padding,
    commits_durable,
    flushes,
    /// Bytes written to the device, by cause.
    bytes_data,
    bytes_padding,
    bytes_fill,
    bytes_header,
    bytes_footer,
    /// A commit outgrew the slot that was foreseen for it, and was copied once more.
    commits_regrown,
    rolls,
    /// Rolls that had to wait because the next segment was not ready.
    rolls_waited,
    segments_created,
    segments_recycled,
    segments_dropped,
    footers_written,
    footers_unreadable,
    recoveries,
    recoveries_scanned_segments,
    recovery_read_bytes,
    torn_tails,
    commits_truncated,
    corrupt_ranges,
    corrupt_entries,
    disk_full,
    disk_full_recovered,
    failures,
    appends_busy,
    reads_cached,
    reads_cold,
    reads_cold_bytes,
    reads_corrupt,
    /// Bytes that were read for nothing but to look whether they are intact, and entries that were not.
    scrub_bytes,
    scrub_damaged,
    log_starts_moved,
}
