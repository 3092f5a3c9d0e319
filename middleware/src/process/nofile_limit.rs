//! How many files, and so connections, a process may have open.

/// Files beside the connections of its ports: of pools, other services, logs and libraries.
const RESERVED_FILES: u64 = 256;

/// As many as the system lets this process have; what a shell passes on (1,024, as a rule) is less than the `max_connections` of
/// its ports together.
pub(super) fn raise_nofile_limit(max_connections: usize) {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(files) if files >= max_connections as u64 + RESERVED_FILES => {}
        Ok(files) => tracing::warn!(files, max_connections, "fewer files may be open than server.max_connections needs"),
        Err(error) => tracing::warn!(%error, "how many files may be open cannot be changed"),
    }
}

#[cfg(test)]
mod tests {
    use rlimit::Resource;

    use super::*;

    #[test]
    fn what_a_shell_passes_on_is_raised_to_what_the_system_allows() {
        let (_, hard) = Resource::NOFILE.get().unwrap();
        Resource::NOFILE.set(hard - 1, hard).unwrap();
        raise_nofile_limit(8_192);
        assert_eq!(Resource::NOFILE.get().unwrap(), (hard, hard));
    }
}
