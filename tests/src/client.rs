//! HTTP client for port 3000 that checks every response against the contract: both ID headers, and
//! one format for all errors.

pub mod gateways;

use std::{collections::BTreeSet, fmt::Write, future::IntoFuture, pin::Pin, sync::Arc};

use reqwest::{
    Method, StatusCode, Url,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::Value;

use self::gateways::Gateways;

/// Terms that no response may contain, because they reveal implementation details.
const INTERNAL_TERMS: [&str; 10] =
    ["sqlx", "sqlite", "postgres", "mongo", "select ", "127.0.0.1", "panicked", ".rs:", "serde", "stack backtrace"];

/// Client with a base URL and an optional token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    gateways: Option<Arc<Gateways>>,
}

impl Client {
    /// Creates a client with this bearer token, or without one.
    pub fn new(base: impl Into<String>, token: Option<String>) -> Self {
        // Connections belong to the runtime that opened them, so each test creates its own client.
        let http = reqwest::Client::builder().no_proxy().build().expect("client builder without custom TLS roots is valid");
        Self { http, base: base.into(), token, gateways: None }
    }

    /// Switches to HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    #[must_use]
    pub fn with_http2(mut self) -> Self {
        self.http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("client builder is valid");
        self
    }

    /// Switches to TLS with this CA (a PEM file) as the only root.
    #[must_use]
    pub fn with_ca(mut self, authority: &std::path::Path) -> Self {
        let pem = std::fs::read(authority).expect("CA file is readable");
        let root = reqwest::Certificate::from_pem(&pem).expect("CA file is a PEM certificate");
        self.http = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().expect("client builder is valid");
        self
    }

    /// Uses several gateways and fails over between them.
    #[must_use]
    pub fn with_gateways(mut self, gateways: Arc<Gateways>) -> Self {
        self.gateways = Some(gateways);
        self
    }

    /// Returns the base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Returns the bearer token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Creates a `GET` request.
    pub fn get(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::GET, path)
    }

    /// Creates a `DELETE` request.
    pub fn delete(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// Creates a `POST` request with a JSON body.
    pub fn post(&self, path: impl AsRef<str>, body: &Value) -> Request {
        self.request(Method::POST, path).json(body.to_string())
    }

    /// Creates a `PUT` request with a JSON body.
    pub fn put(&self, path: impl AsRef<str>, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body.to_string())
    }

    /// Creates a request without a body.
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> Request {
        let mut request = self.http.request(method, format!("{}{}", self.base, path.as_ref()));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Request { request, gateways: self.gateways.clone() }
    }
}

/// Request, sent by `.await`.
#[derive(Debug)]
pub struct Request {
    request: reqwest::RequestBuilder,
    gateways: Option<Arc<Gateways>>,
}

impl Request {
    /// Appends a header. Headers of the same name are kept.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self { request: self.request.header(name, value.as_ref()), ..self }
    }

    /// Sets the body, with the content type `application/json`.
    #[must_use]
    pub fn json(self, text: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.header(CONTENT_TYPE, "application/json").body(text), ..self }
    }

    /// Sets the body, without a content type.
    #[must_use]
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body), ..self }
    }

    /// Sends the request and returns the unread response. For streams, which are always opened at
    /// the first gateway.
    pub async fn send(self) -> reqwest::Result<reqwest::Response> {
        self.request.send().await
    }

    /// Sends the request. Fails without a complete response, e.g. when the server is killed.
    pub async fn attempt(self) -> reqwest::Result<Response> {
        match &self.gateways {
            Some(gateways) => gateways.attempt(self.request).await,
            None => Response::read_to_end(self.request.send().await).await,
        }
    }
}

impl IntoFuture for Request {
    type Output = Response;
    type IntoFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            let answer = self.attempt().await.expect("server responds");
            for id in ["x-request-id", "x-trace-id"] {
                assert!(answer.headers.contains_key(id), "{id} is missing: {answer:?}");
            }
            answer
        })
    }
}

/// Complete response.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Request URL.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Response {
    /// Reads the complete response.
    pub(crate) async fn read_to_end(response: reqwest::Result<reqwest::Response>) -> reqwest::Result<Self> {
        let response = response?;
        let (status, url, headers) = (response.status(), response.url().clone(), response.headers().clone());
        Ok(Self { status, url, headers, body: response.bytes().await?.to_vec() })
    }

    /// Returns the value of a header, or `None`.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().expect("header values are visible ASCII"))
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON, for any status.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    /// Asserts a success with this status and returns its JSON.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.url, self.text());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.url);
        self.json()
    }

    /// Asserts a response with this status and without a body.
    #[track_caller]
    pub fn empty(&self, status: u16) {
        assert_eq!((self.status.as_u16(), self.text().as_str()), (status, ""), "{}", self.url);
    }

    /// Asserts a problem (RFC 9457) with this status and code, and the format required by the
    /// contract.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.any_problem(status);
        assert_eq!(problem["code"], code, "{}: {problem}", self.url);
        problem
    }

    /// Same as [`Self::problem`], where the contract does not define the code.
    #[track_caller]
    pub fn any_problem(&self, status: u16) -> Value {
        let mut context = format!("{} {}: {}", self.status, self.url, self.text());
        context.truncate(2_000);
        assert_eq!(self.status.as_u16(), status, "{context}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{context}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{context}");
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{context}");
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.ends_with(&format!("/problems/{code}")), "{context}");
        for text in ["title", "detail"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{text} is missing: {context}");
        }
        assert_eq!(problem["instance"], self.url.path(), "{context}");
        for (member, header) in [("requestId", "x-request-id"), ("traceId", "x-trace-id")] {
            assert_eq!(problem[member].as_str(), self.header(header), "{member}: {context}");
        }
        let errors = problem.get("errors").map(|errors| errors.as_array().expect("errors is an array"));
        assert_eq!(errors.is_some(), code == "validation_failed", "{context}");
        for error in errors.into_iter().flatten() {
            assert!(["field", "code", "message"].iter().all(|member| error[member].is_string()), "{context}");
        }
        let required_header = match status {
            401 => Some(WWW_AUTHENTICATE),
            405 => Some(ALLOW),
            429 | 503 => Some(RETRY_AFTER),
            _ => None,
        };
        assert!(required_header.is_none_or(|header| self.headers.contains_key(header)), "required header is missing: {context}");
        let lower = self.text().to_lowercase();
        let leaks: Vec<_> = INTERNAL_TERMS.iter().filter(|word| lower.contains(*word)).collect();
        assert!(leaks.is_empty(), "{leaks:?} in {context}");
        problem
    }

    /// Asserts a `validation_failed` problem and returns its distinct field names, sorted.
    #[track_caller]
    pub fn assert_violations(&self) -> Vec<String> {
        let problem = self.problem(400, "validation_failed");
        let errors = problem["errors"].as_array().expect("checked by `problem`");
        let fields: BTreeSet<_> = errors.iter().filter_map(|error| error["field"].as_str()).map(str::to_owned).collect();
        fields.into_iter().collect()
    }
}

/// Builds a query string: `?a=b&c=d`, with all but unreserved characters percent-encoded (RFC 3986
/// §2.3).
pub fn query(pairs: &[(&str, &str)]) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        query += if query.is_empty() { "?" } else { "&" };
        for (text, end) in [(name, "="), (value, "")] {
            for byte in text.bytes() {
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    query.push(char::from(byte));
                } else {
                    let _ = write!(query, "%{byte:02X}");
                }
            }
            query += end;
        }
    }
    query
}
