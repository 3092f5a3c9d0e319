//! Live label values: labels whose values come and go, such as the endpoints of a target. A
//! recorder removes the series of a value after its last guard is dropped.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::current_service;

/// Label name of the series that belong to one endpoint of a target.
pub const ENDPOINT_LABEL: &str = "endpoint";

/// Service scope and label value.
type Value = (Option<&'static str>, Arc<str>);

static LIVE: Mutex<Option<HashMap<Value, usize>>> = Mutex::new(None);

/// Keeps the series of one label value exposed while it is alive. Belongs to the service in whose
/// scope it was created, like the series.
#[derive(Debug)]
pub struct LiveLabel {
    service: Option<&'static str>,
    value: Arc<str>,
}

impl LiveLabel {
    /// Marks `value` of [`ENDPOINT_LABEL`] as live. Create it before its series.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        let label = Self { service: current_service(), value: value.into() };
        *LIVE.lock().get_or_insert_default().entry((label.service, label.value.clone())).or_default() += 1;
        label
    }

    /// Returns the label value.
    pub fn value(&self) -> &Arc<str> {
        &self.value
    }
}

impl Drop for LiveLabel {
    fn drop(&mut self) {
        let mut live = LIVE.lock();
        let Some(live) = live.as_mut() else { return };
        let key = (self.service, self.value.clone());
        if let Some(count) = live.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                live.remove(&key);
            }
        }
    }
}

/// Returns whether `value` is live in the scope of `service`, or outside any scope.
pub fn is_live(service: &str, value: &str) -> bool {
    let live = LIVE.lock();
    live.as_ref().is_some_and(|live| live.keys().any(|(scope, live)| &**live == value && scope.is_none_or(|scope| scope == service)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn label_is_live_until_last_guard_is_dropped() {
        let (first, second) = super::super::with_service("left", async { (LiveLabel::new("live:1"), LiveLabel::new("live:1")) }).await;
        assert!(is_live("left", "live:1") && !is_live("right", "live:1"));
        drop(first);
        assert!(is_live("left", "live:1"));
        drop(second);
        assert!(!is_live("left", "live:1"));
        let _shared = LiveLabel::new("live:1");
        assert!(is_live("left", "live:1") && is_live("right", "live:1"));
    }
}
