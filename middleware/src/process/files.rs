//! How many files, and so connections, a process may have open.

/// Files beside the connections of its ports: of pools, other services, logs and libraries.
const OTHERS: u64 = 256;

/// As many as the system lets this process have; what a shell passes on (1,024, as a rule) is less than `max_connections`.
pub(super) fn allow(max_connections: usize) {
    let files = rlimit::increase_nofile_limit(rlimit::INFINITY).unwrap_or_default();
    if files < max_connections as u64 + OTHERS {
        tracing::warn!(files, max_connections, "fewer files may be open than server.max_connections needs");
    }
}

#[cfg(test)]
mod tests {
    use rlimit::Resource;

    use super::*;

    #[test]
    fn what_a_shell_passes_on_is_raised_to_what_the_system_allows() {
        let (soft, hard) = Resource::NOFILE.get().unwrap();
        Resource::NOFILE.set(soft.min(200), hard).unwrap();
        allow(8_192);
        assert_eq!(Resource::NOFILE.get().unwrap(), (hard, hard));
    }
}
