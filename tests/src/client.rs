//! A client of port 3000 that holds every answer to the contract: the two ids always, and one shape for every error.

use std::{collections::BTreeSet, fmt::Write, future::IntoFuture, pin::Pin, sync::Arc};

use reqwest::{
    Method, StatusCode, Url,
    header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::Value;

use crate::gateways::Gateways;

/// Words that no answer may contain: they would tell how the inside is made.
const LEAKS: [&str; 10] = ["sqlx", "sqlite", "postgres", "mongo", "select ", "127.0.0.1", "panicked", ".rs:", "serde", "stack backtrace"];

/// One caller: a base URL and, mostly, a token.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    gateways: Option<Arc<Gateways>>,
}

impl Client {
    /// A caller with this bearer token, or none.
    pub fn new(base: impl Into<String>, token: Option<String>) -> Self {
        // Connections belong to the runtime that made them: each test makes its own client.
        let http = reqwest::Client::builder().no_proxy().build().expect("a client without TLS roots of its own can be built");
        Self { http, base: base.into(), token, gateways: None }
    }

    /// The same caller over HTTP/2 without TLS, by prior knowledge (RFC 9113 §3.3).
    #[must_use]
    pub fn over_http2(mut self) -> Self {
        self.http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().expect("as above");
        self
    }

    /// The same caller over TLS, with this authority (a PEM file) and no other.
    #[must_use]
    pub fn trusting(mut self, authority: &std::path::Path) -> Self {
        let pem = std::fs::read(authority).expect("the authority is there");
        let root = reqwest::Certificate::from_pem(&pem).expect("it is a certificate");
        self.http = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().expect("as above");
        self
    }

    /// The same caller of several gateways, which tries another one when one fails.
    #[must_use]
    pub fn over(mut self, gateways: Arc<Gateways>) -> Self {
        self.gateways = Some(gateways);
        self
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The bearer token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// `GET`.
    pub fn get(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::GET, path)
    }

    /// `DELETE`.
    pub fn delete(&self, path: impl AsRef<str>) -> Request {
        self.request(Method::DELETE, path)
    }

    /// `POST` of JSON.
    pub fn post(&self, path: impl AsRef<str>, body: &Value) -> Request {
        self.request(Method::POST, path).json(body.to_string())
    }

    /// `PUT` of JSON.
    pub fn put(&self, path: impl AsRef<str>, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body.to_string())
    }

    /// Any method, without a body.
    pub fn request(&self, method: Method, path: impl AsRef<str>) -> Request {
        let mut request = self.http.request(method, format!("{}{}", self.base, path.as_ref()));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        Request { request, gateways: self.gateways.clone() }
    }
}

/// A request about to be sent by `.await`.
#[derive(Debug)]
pub struct Request {
    request: reqwest::RequestBuilder,
    gateways: Option<Arc<Gateways>>,
}

impl Request {
    /// Adds a header; a second of the same name stands beside the first.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        Self { request: self.request.header(name, value.as_ref()), ..self }
    }

    /// This text as `application/json`.
    #[must_use]
    pub fn json(self, text: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.header(CONTENT_TYPE, "application/json").body(text), ..self }
    }

    /// A body without a content type.
    #[must_use]
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        Self { request: self.request.body(body), ..self }
    }

    /// Sends it and gives the answer as it comes; for streams, which all come from the first gateway.
    pub async fn send(self) -> reqwest::Result<reqwest::Response> {
        self.request.send().await
    }

    /// Sends it; an error when no whole answer came back, as happens to callers of a server that is killed.
    pub async fn attempt(self) -> reqwest::Result<Answer> {
        match &self.gateways {
            Some(gateways) => gateways.attempt(self.request).await,
            None => Answer::read_to_end(self.request.send().await).await,
        }
    }
}

impl IntoFuture for Request {
    type Output = Answer;
    type IntoFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async {
            let answer = self.attempt().await.expect("the server answers");
            for id in ["x-request-id", "x-trace-id"] {
                assert!(answer.headers.contains_key(id), "{id} is missing: {answer:?}");
            }
            answer
        })
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// What was asked.
    pub url: Url,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Once all of it is there.
    pub(crate) async fn read_to_end(response: reqwest::Result<reqwest::Response>) -> reqwest::Result<Self> {
        let response = response?;
        let (status, url, headers) = (response.status(), response.url().clone(), response.headers().clone());
        Ok(Self { status, url, headers, body: response.bytes().await?.to_vec() })
    }

    /// A header's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.headers.get(name)?.to_str().expect("header values are visible ASCII"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON, whatever the status.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    /// The JSON of a success with exactly this status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}: {}", self.url, self.text());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.url);
        self.json()
    }

    /// An answer that has no body.
    #[track_caller]
    pub fn empty(&self, status: u16) {
        assert_eq!((self.status.as_u16(), self.text().as_str()), (status, ""), "{}", self.url);
    }

    /// The problem (RFC 9457) of an error with exactly this status and code, and all that the contract says of its shape.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        let problem = self.any_problem(status);
        assert_eq!(problem["code"], code, "{}: {problem}", self.url);
        problem
    }

    /// As [`Self::problem`], where the contract leaves the code open.
    #[track_caller]
    pub fn any_problem(&self, status: u16) -> Value {
        let mut about = format!("{} {}: {}", self.status, self.url, self.text());
        about.truncate(2_000);
        assert_eq!(self.status.as_u16(), status, "{about}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{about}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{about}");
        let code = problem["code"].as_str().unwrap_or_default();
        assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{about}");
        let kind = problem["type"].as_str().unwrap_or_default();
        assert!(kind.ends_with(&format!("/problems/{code}")), "{about}");
        for text in ["title", "detail"] {
            assert!(problem[text].as_str().is_some_and(|text| !text.is_empty()), "{text} is missing: {about}");
        }
        assert_eq!(problem["instance"], self.url.path(), "{about}");
        for (member, header) in [("requestId", "x-request-id"), ("traceId", "x-trace-id")] {
            assert_eq!(problem[member].as_str(), self.header(header), "{member}: {about}");
        }
        let errors = problem.get("errors").map(|errors| errors.as_array().expect("errors is an array"));
        assert_eq!(errors.is_some(), code == "validation_failed", "{about}");
        for error in errors.into_iter().flatten() {
            assert!(["field", "code", "message"].iter().all(|member| error[member].is_string()), "{about}");
        }
        let needed = match status {
            401 => Some(WWW_AUTHENTICATE),
            405 => Some(ALLOW),
            429 | 503 => Some(RETRY_AFTER),
            _ => None,
        };
        assert!(needed.is_none_or(|header| self.headers.contains_key(header)), "a header is missing: {about}");
        let lower = self.text().to_lowercase();
        let leaks: Vec<_> = LEAKS.iter().filter(|word| lower.contains(*word)).collect();
        assert!(leaks.is_empty(), "{leaks:?} in {about}");
        problem
    }

    /// The fields named by a `validation_failed`, sorted, each once.
    #[track_caller]
    pub fn assert_violations(&self) -> Vec<String> {
        let problem = self.problem(400, "validation_failed");
        let errors = problem["errors"].as_array().expect("checked by `problem`");
        let fields: BTreeSet<_> = errors.iter().filter_map(|error| error["field"].as_str()).map(str::to_owned).collect();
        fields.into_iter().collect()
    }
}

/// A query string: `?a=b&c=d` with all but unreserved characters escaped (RFC 3986 §2.3).
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
