//! Limit of open files (`RLIMIT_NOFILE`), and so of connections.

/// Reserve beside server connections: store pools, client connections, logs and libraries.
const RESERVED_FILES: u64 = 256;

/// Raises the soft limit to the hard limit. The soft limit inherited from a shell (usually 1,024)
/// is below the total `max_connections` of the ports.
pub(super) fn raise_nofile_limit(max_connections: usize) {
    match rlimit::increase_nofile_limit(rlimit::INFINITY) {
        Ok(files) if files >= max_connections as u64 + RESERVED_FILES => {}
        Ok(files) => tracing::warn!(files, max_connections, "open file limit is too low for server.max_connections"),
        Err(error) => tracing::warn!(%error, "cannot raise the open file limit"),
    }
}

#[cfg(test)]
mod tests {
    use rlimit::Resource;

    use super::*;

    #[test]
    fn soft_file_limit_raised_to_hard_limit() {
        let (_, hard) = Resource::NOFILE.get().unwrap();
        Resource::NOFILE.set(hard - 1, hard).unwrap();
        raise_nofile_limit(8_192);
        assert_eq!(Resource::NOFILE.get().unwrap(), (hard, hard));
    }
}
