//! Rejections of a connection and whether it respects `Retry-After`. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Requests before their time that are rejected at once: a client may have several on their way, or
/// several users.
const TOLERATED: u32 = 3;
/// Maximum time that a rejection is held back, however long the client should wait.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Rejections of one connection.
#[derive(Debug, Default)]
pub(super) struct RefusalHistory {
    /// Time of the last rejection, and the time until which the client should wait.
    last: Option<(Instant, Instant)>,
    /// Requests in a row that came before their time.
    early: u32,
}

impl RefusalHistory {
    /// Records the rejection of a request that arrived at `arrived` and may be repeated after
    /// `wait`. Returns the time until which it is held back.
    pub(super) fn refuse(&mut self, arrived: Instant, now: Instant, wait: Duration) -> Option<Instant> {
        match self.last {
            // On its way before the client could know.
            Some((rejected_at, _)) if arrived < rejected_at => {}
            Some((_, retry_at)) if arrived < retry_at => self.early += 1,
            _ => self.early = 0,
        }
        let pause = (self.early > TOLERATED).then(|| now + wait.min(MAX_PAUSE));
        let answered_at = pause.unwrap_or(now);
        let retry_at = self.last.map_or(now, |(_, retry_at)| retry_at).max(answered_at + wait);
        let rejected_at = self.last.map_or(answered_at, |(rejected_at, retry_at)| if now < retry_at { rejected_at } else { answered_at });
        self.last = Some((rejected_at, retry_at));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn client_that_ignores_its_wait_is_paused() {
        let (mut history, mut now) = (RefusalHistory::default(), Instant::now());
        for request in 0..10 {
            let paused = history.refuse(now, now, SECOND);
            assert_eq!(paused.is_some(), request > TOLERATED, "request {request}");
            now = paused.unwrap_or(now) + Duration::from_millis(1);
        }
    }

    #[test]
    fn client_that_waits_is_never_paused() {
        let (mut history, mut now) = (RefusalHistory::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(history.refuse(now, now, SECOND), None);
            now += SECOND;
        }
        // Patience is rewarded at once.
        for _ in 0..10 {
            history.refuse(now, now, SECOND);
        }
        now += 10 * MAX_PAUSE;
        assert_eq!(history.refuse(now, now, SECOND), None);
    }

    #[test]
    fn requests_sent_together_are_rejected_at_once() {
        let (mut history, sent) = (RefusalHistory::default(), Instant::now());
        for request in 0..100 {
            assert_eq!(history.refuse(sent, sent + Duration::from_millis(request + 1), SECOND), None);
        }
    }

    #[test]
    fn pause_is_bounded() {
        let (mut history, now) = (RefusalHistory::default(), Instant::now());
        let pauses = (0..10).filter_map(|_| history.refuse(now, now, 100 * SECOND)).max();
        assert_eq!(pauses, Some(now + MAX_PAUSE));
    }
}
