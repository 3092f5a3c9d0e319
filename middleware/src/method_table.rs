//! Every method that a server answers, with who may call it: default deny, and the source of all bounded labels.

use http::{HeaderValue, Method as Verb};
use rustc_hash::FxHashMap;

use crate::priority::Priority;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without a token.
    Public,
    /// A token with this scope.
    Scope(&'static str),
    /// A token with any of these scopes; the first is the one to ask for.
    AnyScope(&'static [&'static str]),
    /// One of these services itself, by an internal token with this scope. No user's token will do.
    Service {
        /// The scope that the internal token must carry.
        scope: &'static str,
        /// The services (`act` of the internal token) that may call.
        callers: &'static [&'static str],
    },
}

/// One method of an API.
#[derive(Debug, PartialEq, Eq)]
pub struct Method {
    /// HTTP method; `POST` for every gRPC method.
    pub verb: &'static str,
    /// HTTP route template (`/products/{id}`) or gRPC path (`/package.Service/Method`).
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Not traced, not counted, never shed: health, metrics, reflection.
    pub infrastructure: bool,
    /// A gRPC method: the entry holds for every HTTP method, because tonic runs the handler for every one.
    grpc: bool,
    /// Its answer goes on for as long as it may, piece by piece: see [`crate::streams`].
    pub streaming: bool,
    /// How much its requests matter, unless one of our own services says otherwise.
    pub priority: Priority,
}

impl Method {
    /// A gRPC method, by its path `/package.Service/Method`.
    pub const fn grpc(path: &'static str, access: Access) -> Self {
        Self { verb: "POST", path, access, infrastructure: false, grpc: true, streaming: false, priority: Priority::Default }
    }

    /// An HTTP method on a route template such as `/products/{id}`.
    pub const fn http(verb: &'static str, path: &'static str, access: Access) -> Self {
        Self { verb, path, access, infrastructure: false, grpc: false, streaming: false, priority: Priority::Default }
    }

    /// The same method, kept out of traces and metrics.
    #[must_use]
    pub const fn infrastructure(mut self) -> Self {
        self.infrastructure = true;
        self
    }

    /// The same method, whose answer is a stream without an end of its own.
    #[must_use]
    pub const fn streaming(mut self) -> Self {
        self.streaming = true;
        self
    }

    /// The same method, whose requests matter more or less than others.
    #[must_use]
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The gRPC method name of semantic conventions: `package.Service/Method`.
    pub fn rpc_method(&self) -> &'static str {
        self.path.trim_start_matches('/')
    }
}

/// What a server is registered to answer differs from its method table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MethodTableError {
    /// A registered method has no entry: nobody said who may call it.
    #[error("method {0} is served but not in the method table")]
    MissingEntry(String),
    /// An entry names a method that is not served.
    #[error("method {0} is in the method table but not served")]
    NotServed(String),
    /// Two templates cannot stand side by side.
    #[error("route {0} conflicts with another")]
    RouteConflict(String),
}

/// The methods that a path has, as `Allow` lists them; in the extensions of a request whose path is in the table and whose method is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed(pub HeaderValue);

/// Finds the entry of a request. What has no entry reaches no handler.
///
/// ```
/// use palisade_middleware::method_table::{Access, Method, MethodTable};
///
/// static METHODS: [Method; 2] = [
///     Method::http("GET", "/things/{id}", Access::Scope("things:read")),
///     Method::grpc("/shop.v1.Things/Get", Access::Public),
/// ];
/// let table = MethodTable::new(&[&METHODS])?;
/// assert_eq!(table.find(&http::Method::GET, "/things/7"), Some(&METHODS[0]));
/// # Ok::<(), palisade_middleware::method_table::Incomplete>(())
/// ```
#[derive(Debug)]
pub struct MethodTable {
    all: Vec<&'static Method>,
    exact: FxHashMap<&'static str, &'static Method>,
    templates: matchit::Router<Vec<&'static Method>>,
}

impl MethodTable {
    /// A table of `methods`; paths with `{…}` are templates in axum's grammar.
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

    /// Every entry.
    pub fn methods(&self) -> impl Iterator<Item = &'static Method> {
        self.all.iter().copied()
    }

    /// The entry for a request, `HEAD` as `GET`.
    pub fn find(&self, verb: &Verb, path: &str) -> Option<&'static Method> {
        let verb = if verb == Verb::HEAD { Verb::GET.as_str() } else { verb.as_str() };
        if let Some(method) = self.exact.get(path) {
            return (method.grpc || method.verb == verb).then_some(*method);
        }
        let found = self.templates.at(path).ok()?;
        found.value.iter().find(|method| method.verb == verb).copied()
    }

    /// What else may be sent to `path`, if it has any entry.
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

    /// Checks that the table covers each of `served` (gRPC paths without the leading slash) and names nothing else.
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
}

#[cfg(test)]
mod tests {
    use super::*;

    static METHODS: [Method; 4] = [
        Method::http("GET", "/things", Access::Scope("things:read")),
        Method::http("POST", "/things", Access::Scope("things:write")),
        Method::http("GET", "/things/{id}", Access::Scope("things:read")),
        Method::grpc("/a.B/C", Access::Public),
    ];

    #[test]
    fn finds_templates_by_verb_and_treats_head_as_get() {
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
    fn a_grpc_method_is_guarded_whatever_the_verb() {
        let table = MethodTable::new(&[&METHODS]).unwrap();
        for verb in [Verb::POST, Verb::GET, Verb::PUT, Verb::OPTIONS] {
            assert_eq!(table.find(&verb, "/a.B/C").unwrap().path, "/a.B/C", "{verb}");
        }
    }

    #[test]
    fn tells_what_is_served_without_an_entry_and_the_reverse() {
        static RPCS: [Method; 1] = [Method::grpc("/a.B/C", Access::Public)];
        let table = MethodTable::new(&[&RPCS]).unwrap();
        assert_eq!(table.check_registered(["a.B/C"]), Ok(()));
        assert_eq!(table.check_registered(["a.B/C", "a.B/D"]), Err(MethodTableError::MissingEntry("a.B/D".to_owned())));
        assert_eq!(table.check_registered([]), Err(MethodTableError::NotServed("/a.B/C".to_owned())));
    }
}
