//! Series of a boundary by method and outcome. Each handle is looked up in the registry once,
//! because a lookup costs ten times as much as recording a value.

use std::{
    borrow::Borrow,
    fmt,
    hash::Hash,
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use metrics::{Counter, Gauge, Histogram};
use rustc_hash::FxHashMap;
use tonic::Code;

use super::{error_type, register_observable_sum};
use crate::{counter::AtomicCounter, grpc_status, protocol::Protocol, response_outcome::Role, scheme::Scheme, time_limit::CALLER_DEADLINE};

/// Cache of metric handles by key. Reads are lock-free; inserting a key copies the map, once per
/// key. Keys must be bounded and not chosen by clients, because the fast hash has no protection
/// against collisions.
#[derive(Debug)]
pub struct HandleCache<K, V>(ArcSwap<FxHashMap<K, Arc<V>>>);

impl<K, V> Default for HandleCache<K, V> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<K: Eq + Hash + Clone, V> HandleCache<K, V> {
    /// Returns the handle of `key`, registered at its first use.
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q, register: impl FnOnce() -> (K, V)) -> Arc<V>
    where
        K: Borrow<Q>,
    {
        if let Some(value) = self.0.load().get(key) {
            return value.clone();
        }
        let (key, value) = register();
        let value = Arc::new(value);
        self.0.rcu(|known| {
            let mut known = FxHashMap::clone(known);
            known.insert(key.clone(), value.clone());
            known
        });
        value
    }
}

/// HTTP statuses registered at startup per route: success and those used by alerts.
const PREREGISTERED_HTTP_STATUSES: [u16; 4] = [200, 500, 503, 504];
/// gRPC codes registered at startup per method: success and those used by alerts.
const PREREGISTERED_GRPC_CODES: [Code; 4] = [Code::Ok, Code::Internal, Code::Unavailable, Code::DeadlineExceeded];

impl HandleCache<(&'static str, &'static str, Scheme), HttpSeries> {
    pub(super) fn series_for(&self, verb: &'static str, route: &'static str, scheme: Scheme) -> Arc<HttpSeries> {
        self.get(&(verb, route, scheme), || ((verb, route, scheme), HttpSeries::new(verb, route, scheme)))
    }
}

impl HandleCache<&'static str, GrpcSeries> {
    pub(super) fn series_for(&self, method: &'static str) -> Arc<GrpcSeries> {
        self.get(&method, || (method, GrpcSeries::server(method)))
    }
}

/// Creates a count that `gauge` exposes at every scrape.
fn observed_count(gauge: Gauge) -> Arc<AtomicCounter> {
    let count = Arc::new(AtomicCounter::new());
    register_observable_sum(&count, gauge, AtomicCounter::get);
    count
}

/// Requests of one route and HTTP method.
pub(super) struct HttpSeries {
    verb: &'static str,
    route: &'static str,
    scheme: Scheme,
    pub(super) active: Arc<AtomicCounter>,
    /// By status, and whether a time that the caller chose has passed.
    by_status: HandleCache<(u16, bool), Histogram>,
}

impl HttpSeries {
    pub(super) fn new(verb: &'static str, route: &'static str, scheme: Scheme) -> Self {
        let active = crate::gauge!("http.server.active_requests", "http.request.method" => verb, "url.scheme" => scheme.name());
        let active = observed_count(active);
        Self { verb, route, scheme, active, by_status: HandleCache::default() }
    }

    /// Registers the series that dashboards and alerts need at zero.
    pub(super) fn preregister(&self) {
        for status in PREREGISTERED_HTTP_STATUSES {
            self.duration(status, false);
        }
        self.duration(504, true);
    }

    pub(super) fn duration(&self, status: u16, caller_timeout: bool) -> Arc<Histogram> {
        let key = (status, caller_timeout);
        self.by_status.get(&key, || {
            let error = match status {
                _ if caller_timeout => CALLER_DEADLINE.to_owned(),
                500.. => status.to_string(),
                _ => String::new(),
            };
            let histogram = crate::histogram!("http.server.request.duration", "http.request.method" => self.verb,
                "url.scheme" => self.scheme.name(), "http.route" => self.route, "http.response.status_code" => status.to_string(), "error.type" => error);
            (key, histogram)
        })
    }
}

/// Value per gRPC code.
pub(crate) struct ByCode<T>([OnceLock<T>; 17]);

impl<T> ByCode<T> {
    pub(crate) fn new() -> Self {
        Self([const { OnceLock::new() }; 17])
    }

    pub(crate) fn get(&self, code: Code, register: impl FnOnce() -> T) -> &T {
        self.0[code as usize].get_or_init(register)
    }
}

/// Calls of one gRPC method, on the server (`target` is `None`) or client side.
pub(super) struct GrpcSeries {
    method: Arc<str>,
    target: Option<Arc<str>>,
    /// `None` for client calls, which the bulkhead counts.
    pub(super) active: Option<Arc<AtomicCounter>>,
    durations: ByCode<Histogram>,
    /// `DEADLINE_EXCEEDED` after a time that the caller chose.
    caller_timeouts: OnceLock<Histogram>,
}

impl GrpcSeries {
    pub(super) fn server(method: &'static str) -> Self {
        let active = observed_count(crate::gauge!("palisade.rpc.server.active_calls", "rpc.method" => method));
        Self { method: method.into(), target: None, active: Some(active), durations: ByCode::new(), caller_timeouts: OnceLock::new() }
    }

    pub(super) fn client(method: &str, target: Arc<str>) -> Self {
        Self { method: method.into(), target: Some(target), active: None, durations: ByCode::new(), caller_timeouts: OnceLock::new() }
    }

    /// Registers the series that dashboards and alerts need at zero.
    pub(super) fn exist(&self) {
        for code in PREREGISTERED_GRPC_CODES {
            self.duration(code);
        }
        self.caller_timeouts();
    }

    /// Server or client role.
    pub(super) fn role(&self) -> Role {
        if self.target.is_some() { Role::Client(Protocol::Grpc) } else { Role::Server(Protocol::Grpc) }
    }

    pub(super) fn duration(&self, code: Code) -> &Histogram {
        self.durations.get(code, || self.register(code, error_type(code)))
    }

    pub(super) fn caller_timeouts(&self) -> &Histogram {
        self.caller_timeouts.get_or_init(|| self.register(Code::DeadlineExceeded, CALLER_DEADLINE))
    }

    fn register(&self, code: Code, error: &'static str) -> Histogram {
        let (method, status) = (self.method.clone(), grpc_status::name(code));
        match &self.target {
            None => crate::histogram!("rpc.server.call.duration", "rpc.system.name" => "grpc", "rpc.method" => method,
                "rpc.status_code" => status, "error.type" => error),
            Some(target) => crate::histogram!("rpc.client.call.duration", "rpc.system.name" => "grpc", "rpc.method" => method,
                "server.address" => target.clone(), "rpc.status_code" => status, "error.type" => error),
        }
    }
}

/// Attempts at one gRPC method of one target (gRFC A66).
pub(crate) struct AttemptSeries {
    method: Arc<str>,
    target: &'static str,
    pub(crate) original: Counter,
    pub(crate) retry: Counter,
    durations: ByCode<Histogram>,
}

impl AttemptSeries {
    pub(crate) fn new(method: &str, target: &'static str) -> Self {
        let method: Arc<str> = method.into();
        let started = |kind: &'static str| {
            crate::counter!("grpc.client.attempt.started", "grpc.method" => method.clone(), "grpc.target" => target,
                "grpc.attempt.type" => kind)
        };
        Self { original: started("original"), retry: started("retry"), method, target, durations: ByCode::new() }
    }

    pub(crate) fn duration(&self, code: Code) -> &Histogram {
        self.durations.get(code, || {
            crate::histogram!("grpc.client.attempt.duration", "grpc.method" => self.method.clone(), "grpc.target" => self.target,
                "grpc.status" => grpc_status::name(code))
        })
    }
}

impl fmt::Debug for AttemptSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptSeries").field("method", &self.method).field("target", &self.target).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::{
        method_table::{Access, Method, MethodTable},
        metrics::{Boundary, MetricsLayer},
    };

    #[test]
    fn alerted_series_are_preregistered() {
        static METHODS: [Method; 3] = [
            Method::http("GET", "/things/{id}", Access::Public),
            Method::http("GET", "/livez", Access::Public).infrastructure(),
            Method::grpc("/a.B/C", Access::Public),
        ];
        let (http, grpc) = (MethodTable::new(&[&METHODS[..2]]).unwrap(), MethodTable::new(&[&METHODS[2..]]).unwrap());
        let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
        let _layers = metrics::with_local_recorder(&recorder, || {
            [
                MetricsLayer::new(Boundary::HttpServer).with_preregistered_series(&http, Scheme::Https),
                MetricsLayer::new(Boundary::GrpcServer).with_preregistered_series(&grpc, Scheme::Http),
            ]
        });
        let text = recorder.handle().render();
        let zero = |series: &str, label: &str| {
            let mut matching = text.lines().filter(|line| line.starts_with(series) && line.contains(label));
            assert!(matching.any(|line| line.ends_with("} 0")), "no {series} with {label} in\n{text}");
        };
        for status in PREREGISTERED_HTTP_STATUSES {
            zero("http_server_request_duration_count", &format!("\"{status}\""));
        }
        zero("http_server_request_duration_count", "url_scheme=\"https\"");
        for code in PREREGISTERED_GRPC_CODES {
            zero("rpc_server_call_duration_count", grpc_status::name(code));
        }
        assert!(!text.contains("livez"), "infrastructure methods have no series");
    }

    #[test]
    fn handle_cache_registers_each_key_once() {
        let cache = HandleCache::<String, u32>::default();
        let mut lookups = 0;
        for (key, expected) in [("a", 1), ("b", 2), ("a", 1)] {
            let value = cache.get(key, || {
                lookups += 1;
                (key.to_owned(), lookups)
            });
            assert_eq!(*value, expected);
        }
        assert_eq!(lookups, 2);
    }
}
