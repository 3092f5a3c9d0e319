use axum::{Router, body::Body, routing::get};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::rejection::{PUSHBACK_HEADER, Violation, reasons};

async fn body_of(response: Response<Either<Body, Full<Bytes>>>) -> serde_json::Value {
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

fn router() -> Router {
    Router::new().route("/refuse", get(|| async { Rejection::invalid(vec![Violation::new("name", "required", "is missing")]) }))
}

#[tokio::test]
async fn handler_rejection_becomes_problem_document() {
    let service = RespondLayer(Protocol::Http).layer(router());
    let response = service.oneshot(Request::get("/refuse").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    let body = body_of(response).await;
    assert_eq!(body["code"], "validation_failed");
    assert_eq!(body["instance"], "/refuse");
    assert_eq!(body["errors"][0]["field"], "name");
}

#[tokio::test]
async fn head_rejection_has_problem_headers_and_no_body() {
    let send = |method: &str| {
        let request = Request::builder().method(method).uri("/refuse").body(Body::empty()).unwrap();
        RespondLayer(Protocol::Http).layer(router()).oneshot(request)
    };
    let (full, head) = (send("GET").await.unwrap(), send("HEAD").await.unwrap());
    assert_eq!((head.status(), head.headers()), (full.status(), full.headers()));
    let length: usize = head.headers()["content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!(full.into_body().collect().await.unwrap().to_bytes().len(), length);
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn handler_answer_passes_untouched() {
    for status in [400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504] {
        let answer = move || async move { (http::StatusCode::from_u16(status).unwrap(), [("x-own", "kept")], "the handler's own text") };
        let handler = Router::new().route("/own", get(answer));
        let request = || Request::get("/own").body(Body::empty()).unwrap();
        let expected = handler.clone().oneshot(request()).await.unwrap();
        let response = RespondLayer(Protocol::Http).layer(handler).oneshot(request()).await.unwrap();
        assert_eq!((response.status(), response.headers()), (expected.status(), expected.headers()));
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "the handler's own text", "{status}");
    }
}

#[tokio::test]
async fn every_reason_maps_to_both_protocols() {
    for reason in reasons::ALL {
        let refuse = |_: Request<Body>| async {
            Err::<Response<Body>, _>(Rejection::new(reason, "no").with_retry_after(std::time::Duration::from_millis(1200)))
        };
        let http = RespondLayer(Protocol::Http).layer(tower::service_fn(refuse));
        let response = http.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!((response.status(), &response.headers()[header::RETRY_AFTER]), (reason.http, &HeaderValue::from(2)));
        assert_eq!(body_of(response).await["code"], reason.slug);

        let grpc = RespondLayer(Protocol::Grpc).layer(tower::service_fn(refuse));
        let response = grpc.oneshot(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(crate::grpc_status::from_headers(response.headers()), Some(reason.grpc));
        assert_eq!(response.headers()[PUSHBACK_HEADER], "1200");
    }
}
