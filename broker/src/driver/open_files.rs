//! How many connections the descriptors of this process allow. Strangers must not use up those that the log needs
//! for its segments: a roll that cannot make a file stops all writing.

/// Raises the soft limit of open files to the hard one, which needs no privilege. Gives the limit then.
pub fn raise_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid for the call that fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: the struct is valid for the call that reads it.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } {
        0 => raised.rlim_cur,
        _ => limit.rlim_cur,
    }
}

/// Connections of one shard: as configured, or as many as leave a quarter of the descriptors to
/// everything else. At least 1, so that a starved host shows itself as slow, not as dead.
pub fn connections_max(configured: u32, open_files_max: u64, shards: usize) -> u32 {
    let for_connections = open_files_max - open_files_max / 4;
    let for_shard = for_connections / (shards as u64).max(1);
    u32::try_from(for_shard).unwrap_or(u32::MAX).clamp(1, configured.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_quarter_of_the_descriptors_to_the_log() {
        assert_eq!(connections_max(10_000, 1 << 20, 4), 10_000);
        assert_eq!(connections_max(10_000, 20_000, 1), 10_000);
        assert_eq!(connections_max(10_000, 20_000, 2), 7_500);
        assert_eq!(connections_max(10_000, 1_024, 8), 96);
        assert_eq!(connections_max(10_000, 0, 2), 1);
        assert_eq!(connections_max(3, u64::MAX, 2), 3);
    }

    #[test]
    fn the_soft_limit_can_be_raised_to_the_hard_one() {
        let raised = raise_limit();
        assert!(raised > 0);
        assert_eq!(raise_limit(), raised);
    }
}
