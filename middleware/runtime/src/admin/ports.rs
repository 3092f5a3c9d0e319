//! Admin ports of the services of a process: their addresses, and routes from outside the service.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use axum::Router;
use parking_lot::Mutex;

/// Admin ports by service. Cheap to clone; clones share the ports.
#[derive(Debug, Clone, Default)]
pub struct AdminPorts(Arc<Mutex<BTreeMap<&'static str, Port>>>);

#[derive(Debug, Default)]
struct Port {
    address: Option<SocketAddr>,
    /// Routes of the service itself.
    own: Router,
    /// Routes from outside the service.
    additional: Router,
}

impl AdminPorts {
    /// Adds routes to the port of a service that is started later.
    pub fn extend(&self, service: &'static str, routes: Router) {
        let mut ports = self.0.lock();
        let port = ports.entry(service).or_default();
        port.additional = std::mem::take(&mut port.additional).merge(routes);
    }

    /// Returns the address of a service's port. `None` before its start.
    pub fn address(&self, service: &str) -> Option<SocketAddr> {
        self.0.lock().get(service)?.address
    }

    /// Returns the routes of a service itself. `None` before its start.
    pub fn routes(&self, service: &str) -> Option<Router> {
        let ports = self.0.lock();
        let port = ports.get(service)?;
        port.address.map(|_| port.own.clone())
    }

    /// Records a port and returns all of its routes.
    pub(crate) fn open(&self, service: &'static str, address: SocketAddr, own: Router) -> Router {
        let mut ports = self.0.lock();
        let port = ports.entry(service).or_default();
        (port.address, port.own) = (Some(address), own.clone());
        own.merge(port.additional.clone())
    }
}
