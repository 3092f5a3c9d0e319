//! API documentation page (Swagger UI), served without external hosts.

use std::{borrow::Cow, sync::Arc};

use axum::{
    extract::{Path, State},
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use palisade_middleware::rejection::{Rejection, reasons};
use utoipa_swagger_ui::Config;

/// Content security policy: only the page's own host. `data:` is for the icons in the style sheet.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// One hour: assets change only with a release.
const ASSET_CACHE: &str = "public, max-age=3600";

/// The `OpenAPI` document as JSON. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SerializedDocument(pub(crate) Bytes);

/// Get this API description
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "documentation",
    responses((status = 200, content_type = "application/json", body = Object, description = "This OpenAPI document")))]
pub(crate) async fn openapi(State(SerializedDocument(json)): State<SerializedDocument>) -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], json).into_response()
}

/// Open the interactive documentation
///
/// Swagger UI for this document. Requests can be sent from the page.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "documentation",
    responses((status = 200, content_type = "text/html", body = String, description = "The HTML page")))]
pub(crate) async fn page() -> Response {
    let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache"), (CONTENT_SECURITY_POLICY, CSP)];
    (headers, include_str!("docs/page.html")).into_response()
}

/// Get an asset of the documentation page
#[utoipa::path(get, path = "/docs/{asset}", operation_id = "docsAsset", tag = "documentation",
    params(("asset" = String, Path, description = "Name of a script or style sheet of the page")),
    responses((status = 200, description = "The script or style sheet")))]
pub(crate) async fn asset(Path(name): Path<String>) -> Result<Response, Rejection> {
    let (content_type, bytes) = match name.as_str() {
        "page.js" => ("text/javascript", Cow::Borrowed(include_bytes!("docs/page.js").as_slice())),
        "swagger-ui.css" => ("text/css", vendored(&name)?),
        "swagger-ui-bundle.js" => ("text/javascript", vendored(&name)?),
        _ => return Err(Rejection::new(&reasons::NOT_FOUND, "unknown asset")),
    };
    Ok(([(CONTENT_TYPE, content_type), (CACHE_CONTROL, ASSET_CACHE)], bytes).into_response())
}

fn vendored(name: &str) -> Result<Cow<'static, [u8]>, Rejection> {
    let file = utoipa_swagger_ui::serve(name, Arc::new(Config::default())).ok().flatten();
    file.map(|file| file.bytes).ok_or_else(|| Rejection::internal("a file is missing in swagger-ui"))
}
