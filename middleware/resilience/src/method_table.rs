//! Method table: all methods of a server with their access rules. Default deny, and the source of
//! bounded label values.

use http::{HeaderValue, Method as Verb};
use rustc_hash::FxHashMap;

use crate::priority::Priority;

/// Access rule of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// A token with this scope.
    Scope(&'static str),
    /// A token with any of these scopes. The challenge names the first.
    AnyScope(&'static [&'static str]),
    /// One of these services itself, with an internal token that has this scope. User tokens are
    /// rejected.
    Service {
        /// Required scope of the internal token.
        scope: &'static str,
        /// Allowed services (`act` of the internal token).
        callers: &'static [&'static str],
    },
}

/// Method of an API.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent marks of a table entry")]
pub struct Method {
    /// HTTP method. `POST` for every gRPC method.
    pub verb: &'static str,
    /// HTTP route template (`/products/{id}`) or gRPC path (`/package.Service/Method`).
    pub path: &'static str,
    /// Access rule.
    pub access: Access,
    /// Infrastructure method (health, metrics, reflection): not traced, not measured, never shed.
    pub infrastructure: bool,
    /// gRPC method. The entry applies to every HTTP method, because tonic runs the handler for
    /// every one.
    grpc: bool,
    /// Streaming response without a natural end, see [`crate::streams`].
    pub streaming: bool,
    /// Request stream of a gRPC method (client or bidirectional streaming): its request is passed
    /// on while it arrives. Every other request is received first.
    pub request_stream: bool,
    /// Constant document from memory: outside the limits of concurrent work, with a rate limit of
    /// its own per address.
    pub static_content: bool,
    /// Whether every refusal leaves a record in the request log, not only a 5xx.
    pub log_refusals: bool,
    /// Cost of a request in tokens of the caller's rate limit: about the work of so many reads.
    pub cost: u32,
    /// Default priority, which internal callers can override.
    pub priority: Priority,
}

impl Method {
    /// Creates a gRPC method with the path `/package.Service/Method`.
    pub const fn grpc(path: &'static str, access: Access) -> Self {
        Self { grpc: true, ..Self::http("POST", path, access) }
    }

    /// Creates an HTTP method on a route template such as `/products/{id}`.
    pub const fn http(verb: &'static str, path: &'static str, access: Access) -> Self {
        Self {
            verb,
            path,
            access,
            infrastructure: false,
            grpc: false,
            streaming: false,
            request_stream: false,
            static_content: false,
            log_refusals: false,
            cost: 1,
            priority: Priority::Default,
        }
    }

    /// Excludes the method from traces, metrics and load shedding.
    #[must_use]
    pub const fn infrastructure(mut self) -> Self {
        self.infrastructure = true;
        self
    }

    /// Marks the response as a stream without a natural end.
    #[must_use]
    pub const fn streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// Marks the request as a stream of messages, which is passed on while it arrives.
    #[must_use]
    pub const fn request_stream(mut self) -> Self {
        self.request_stream = true;
        self
    }

    /// Marks the response as a constant document.
    #[must_use]
    pub const fn static_content(mut self) -> Self {
        self.static_content = true;
        self
    }

    /// Writes every refusal to the request log.
    #[must_use]
    pub const fn log_refusals(mut self) -> Self {
        self.log_refusals = true;
        self
    }

    /// Sets the cost of a request, tokens of the caller's rate limit.
    #[must_use]
    pub const fn cost(mut self, tokens: u32) -> Self {
        self.cost = tokens;
        self
    }

    /// Returns whether requests are outside the limits of concurrent work: health and reflection,
    /// which must answer in an overload, and constant documents, which are no work.
    pub const fn is_exempt_from_limits(&self) -> bool {
        self.infrastructure || self.static_content
    }

    /// Sets the default priority.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Returns the gRPC method name of the semantic conventions: `package.Service/Method`.
    pub fn rpc_method(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}

/// Mismatch between the method table and the registered methods.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MethodTableError {
    /// A served method has no entry, and so no access rule.
    #[error("method {0} is served but not in the method table")]
    MissingEntry(String),
    /// An entry names a method that is not served.
    #[error("method {0} is in the method table but not served")]
    NotServed(String),
    /// A method whose requests are streams is not marked as such, or another one is.
    #[error("method {0} must be marked as a request stream exactly if its requests are streams")]
    RequestStream(String),
    /// Two route templates conflict.
    #[error("route {0} conflicts with another route")]
    RouteConflict(String),
}

/// Value of `Allow`: the methods of a path. Request extension if the path is in the table but the
/// method is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed(pub HeaderValue);

/// Method lookup by request. A request without an entry reaches no handler.
///
/// ```
/// use palisade_resilience::method_table::{Access, Method, MethodTable};
///
/// static METHODS: [Method; 2] = [
///     Method::http("GET", "/things/{id}", Access::Scope("things:read")),
///     Method::grpc("/shop.v1.Things/Get", Access::Public),
/// ];
/// let table = MethodTable::new(&[&METHODS])?;
/// assert_eq!(table.find(&http::Method::GET, "/things/7"), Some(&METHODS[0]));
/// # Ok::<(), palisade_resilience::method_table::MethodTableError>(())
/// ```
#[derive(Debug)]
pub struct MethodTable {
    all: Vec<&'static Method>,
    exact: FxHashMap<&'static str, &'static Method>,
    templates: matchit::Router<Vec<&'static Method>>,
}

impl MethodTable {
    /// Creates a table of `methods`. Paths with `{…}` are templates in axum's grammar.
    pub fn new(methods: &[&'static [Method]]) -> Result<Self, MethodTableError> {
        let mut by_path: FxHashMap<&'static str, Vec<&'static Method>> = FxHashMap::default();
        for method in methods.iter().copied().flatten() {
            by_path.entry(method.path).or_default().push(method);
        }
        let all = methods.iter().copied().flatten().collect();
        let mut table = Self { all, exact: FxHashMap::default(), templates: matchit::Router::new() };
        for (path, methods) in by_path {
            match methods.as_slice() {
                [only] if only.verb == "POST" && !path.contains('{') => {
                    table.exact.insert(path, only);
                }
                _ => table.templates.insert(path, methods).map_err(|_| MethodTableError::RouteConflict(path.to_owned()))?,
            }
        }
        Ok(table)
    }

    /// Returns all entries.
    pub fn methods(&self) -> impl Iterator<Item = &'static Method> {
        self.all.iter().copied()
    }

    /// Returns the entry of a request. `HEAD` is treated as `GET`.
    pub fn find(&self, verb: &Verb, path: &str) -> Option<&'static Method> {
        let verb = if verb == Verb::HEAD { Verb::GET.as_str() } else { verb.as_str() };
        if let Some(method) = self.exact.get(path) {
            return (method.grpc || method.verb == verb).then_some(*method);
        }
        let found = self.templates.at(path).ok()?;
        found.value.iter().find(|method| method.verb == verb).copied()
    }

    /// Returns the methods of `path`, if it has an entry.
    pub(crate) fn allowed(&self, path: &str) -> Option<Allowed> {
        let exact = self.exact.get(path).map(std::slice::from_ref);
        let methods = exact.or_else(|| self.templates.at(path).ok().map(|found| found.value.as_slice()))?;
        let mut verbs: Vec<&str> = methods.iter().map(|method| method.verb).collect();
        if verbs.contains(&"GET") {
            verbs.push("HEAD");
        }
        verbs.sort_unstable();
        HeaderValue::try_from(verbs.join(",")).ok().map(Allowed)
    }

    /// Checks that the table has exactly the `served` methods (gRPC paths without the leading
    /// slash).
    pub fn check_registered<'a>(&self, served: impl IntoIterator<Item = &'a str>) -> Result<(), MethodTableError> {
        let served: std::collections::HashSet<&str> = served.into_iter().collect();
        if let Some(missing) = served.iter().find(|path| !self.exact.contains_key(format!("/{path}").as_str())) {
            return Err(MethodTableError::MissingEntry((*missing).to_owned()));
        }
        match self.exact.values().find(|method| !served.contains(method.rpc_method())) {
            Some(unserved) => Err(MethodTableError::NotServed(unserved.path.to_owned())),
            None => Ok(()),
        }
    }

    /// Checks the marks of request streams: each gRPC path (with the leading slash) with whether
    /// its requests are streams.
    pub fn check_request_streams<'a>(&self, methods: impl IntoIterator<Item = (&'a str, bool)>) -> Result<(), MethodTableError> {
        let marked = |path: &str| self.exact.get(path).map(|method| method.request_stream);
        match methods.into_iter().find(|(path, is_stream)| marked(path).is_some_and(|marked| marked != *is_stream)) {
            Some((path, _)) => Err(MethodTableError::RequestStream(path.to_owned())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static METHODS: [Method; 5] = [
        Method::http("GET", "/things", Access::Scope("things:read")),
        Method::http("POST", "/things", Access::Scope("things:write")),
        Method::http("GET", "/things/{id}", Access::Scope("things:read")),
        Method::http("POST", "/imports", Access::Scope("things:write")),
        Method::grpc("/a.B/C", Access::Public),
    ];

    #[test]
    fn find_matches_templates_by_verb_and_head_as_get() {
        let table = MethodTable::new(&[&METHODS]).unwrap();
        assert_eq!(table.find(&Verb::HEAD, "/things/7").unwrap().path, "/things/{id}");
        assert_eq!(table.find(&Verb::POST, "/things").unwrap().verb, "POST");
        assert_eq!(table.find(&Verb::DELETE, "/things"), None);
        assert_eq!(table.find(&Verb::GET, "/nothing"), None);
        assert_eq!(table.allowed("/things/7").unwrap().0, "GET,HEAD");
        assert_eq!(table.allowed("/things").unwrap().0, "GET,HEAD,POST");
        assert_eq!(table.allowed("/nothing"), None);
    }

    #[test]
    fn find_matches_the_only_verb_of_a_path() {
        let table = MethodTable::new(&[&METHODS]).unwrap();
        assert_eq!(table.find(&Verb::POST, "/imports").unwrap().path, "/imports");
        assert_eq!(table.find(&Verb::GET, "/imports"), None);
    }

    #[test]
    fn grpc_entry_applies_to_every_http_method() {
        let table = MethodTable::new(&[&METHODS]).unwrap();
        for verb in [Verb::POST, Verb::GET, Verb::PUT, Verb::OPTIONS] {
            assert_eq!(table.find(&verb, "/a.B/C").unwrap().path, "/a.B/C", "{verb}");
        }
    }

    #[test]
    fn check_request_streams_reports_both_directions() {
        static RPCS: [Method; 2] = [Method::grpc("/a.B/C", Access::Public), Method::grpc("/a.B/D", Access::Public).request_stream()];
        let table = MethodTable::new(&[&RPCS]).unwrap();
        let check = |methods: [(&str, bool); 2]| table.check_request_streams(methods);
        assert_eq!(check([("/a.B/C", false), ("/a.B/D", true)]), Ok(()));
        assert_eq!(check([("/a.B/C", true), ("/a.B/D", true)]), Err(MethodTableError::RequestStream("/a.B/C".to_owned())));
        assert_eq!(check([("/a.B/C", false), ("/a.B/D", false)]), Err(MethodTableError::RequestStream("/a.B/D".to_owned())));
    }

    #[test]
    fn check_registered_reports_both_directions() {
        static RPCS: [Method; 1] = [Method::grpc("/a.B/C", Access::Public)];
        let table = MethodTable::new(&[&RPCS]).unwrap();
        assert_eq!(table.check_registered(["a.B/C"]), Ok(()));
        assert_eq!(table.check_registered(["a.B/C", "a.B/D"]), Err(MethodTableError::MissingEntry("a.B/D".to_owned())));
        assert_eq!(table.check_registered([]), Err(MethodTableError::NotServed("/a.B/C".to_owned())));
    }
}
