//! Facts about a request that only inner layers know, for its record in the request log.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Principal;

/// Authenticated caller and last called service of a request.
#[derive(Debug, Default)]
pub struct Facts {
    principal: OnceLock<Arc<Principal>>,
    upstream: Mutex<Option<Arc<str>>>,
}

impl Facts {
    /// Returns the authenticated caller.
    pub(crate) fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.get()
    }

    /// Returns the last called service.
    pub(crate) fn upstream(&self) -> Option<Arc<str>> {
        self.upstream.lock().clone()
    }

    pub(super) fn set_principal(&self, principal: &Arc<Principal>) {
        let _ = self.principal.set(principal.clone());
    }

    pub(super) fn set_upstream(&self, target: &Arc<str>) {
        *self.upstream.lock() = Some(target.clone());
    }
}
