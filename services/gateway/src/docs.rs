//! API documentation page (Swagger UI), served without external hosts.

use std::{io::Read, sync::Arc};

use axum::{
    extract::{Path, State},
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::read::GzDecoder;
use palisade_middleware::{
    content_negotiation::accepts_gzip,
    rejection::{Rejection, reasons},
};
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
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Rejection> {
    let (content_type, vendored) = match name.as_str() {
        "page.js" => ("text/javascript", false),
        "swagger-ui.css" => ("text/css", true),
        "swagger-ui-bundle.js" => ("text/javascript", true),
        _ => return Err(Rejection::new(&reasons::NOT_FOUND, "unknown asset")),
    };
    let description = [(CONTENT_TYPE, content_type), (CACHE_CONTROL, ASSET_CACHE)];
    if !vendored {
        return Ok((description, include_str!("docs/page.js")).into_response());
    }
    // The program contains these files in compressed form.
    let file = utoipa_swagger_ui::serve(&name, Arc::new(Config::default())).ok().flatten();
    let compressed = file.ok_or_else(|| Rejection::internal("a file is missing in swagger-ui"))?.bytes;
    if accepts_gzip(&headers) {
        return Ok((description, [(VARY, "accept-encoding"), (CONTENT_ENCODING, "gzip")], compressed).into_response());
    }
    let mut bytes = Vec::new();
    GzDecoder::new(&*compressed)
        .read_to_end(&mut bytes)
        .map_err(|error| Rejection::internal("a file of swagger-ui is damaged").with_source(error))?;
    Ok((description, [(VARY, "accept-encoding")], bytes).into_response())
}

#[cfg(test)]
mod tests {
    use axum::http::header::ACCEPT_ENCODING;
    use http_body_util::BodyExt;

    use super::*;

    async fn get(name: &str, accept_encoding: Option<&'static str>) -> (HeaderMap, Bytes) {
        let headers = accept_encoding.map(|value| (ACCEPT_ENCODING, value.parse().unwrap())).into_iter().collect();
        let (head, body) = asset(Path(name.to_owned()), headers).await.unwrap().into_parts();
        (head.headers, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn assets_are_compressed_for_clients_that_accept_it() {
        for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
            let (headers, plain) = get(name, None).await;
            assert!(!headers.contains_key(CONTENT_ENCODING) && plain.len() > 100_000, "{name}: {} bytes", plain.len());
            for accepted in ["gzip", "br;q=1, GZIP ; q=0.5"] {
                let (headers, compressed) = get(name, Some(accepted)).await;
                assert_eq!((&headers[CONTENT_ENCODING], &headers[VARY]), (&"gzip".parse().unwrap(), &"accept-encoding".parse().unwrap()));
                assert!(compressed.len() < plain.len() / 2, "{name}: {} bytes", compressed.len());
                let mut bytes = Vec::new();
                GzDecoder::new(&*compressed).read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes, plain);
            }
            for refused in ["gzip;q=0", "br", "", "gzip;q=x"] {
                assert_eq!(get(name, Some(refused)).await.1, plain, "{refused}");
            }
        }
    }
}
