//! The page and its assets: static, without other hosts.

use axum::{
    Router,
    extract::Path,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
    routing::get,
};
use palisade_middleware::rejection::{Rejection, reasons};

/// Content security policy: only the page's own host.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
                   form-action 'none'; frame-ancestors 'none'";

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, content type and text of the assets.
const ASSETS: [(&str, &str, &str); 7] = [
    ("style.css", CSS, include_str!("page/style.css")),
    ("main.js", SCRIPT, include_str!("page/main.js")),
    ("charts.js", SCRIPT, include_str!("page/charts.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("metrics.js", SCRIPT, include_str!("page/metrics.js")),
    ("requests.js", SCRIPT, include_str!("page/requests.js")),
    ("switches.js", SCRIPT, include_str!("page/switches.js")),
];

pub(super) fn routes() -> Router {
    Router::new().route("/console", get(page)).route("/console/assets/{name}", get(asset))
}

async fn page() -> Response {
    respond("text/html; charset=utf-8", include_str!("page/index.html"))
}

async fn asset(Path(name): Path<String>) -> Result<Response, Rejection> {
    let found = ASSETS.iter().find(|(asset, ..)| *asset == name);
    let (_, content_type, text) = found.ok_or_else(|| Rejection::new(&reasons::NOT_FOUND, "unknown asset"))?;
    Ok(respond(content_type, text))
}

/// Never cached: another release may use the same port.
fn respond(content_type: &'static str, text: &'static str) -> Response {
    let headers =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, CSP), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text).into_response()
}
