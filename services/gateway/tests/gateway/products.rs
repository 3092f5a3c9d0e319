//! HTTP behaviour of `/products`.

use palisade_middleware::rejection::{Rejection, reasons};
use palisade_proto::products::v1::{FindAllRequest, ProductSort};
use tonic::Status;

use crate::{
    Gateway,
    fake_services::{ID, USED_KEY},
};

const KETTLE: &str =
    r#"{"name": "Kettle", "description": "steel", "price": 24.90, "quantity": 7, "category": "kitchen", "isActive": false}"#;

fn product_path() -> String {
    format!("/products/{ID}")
}

#[tokio::test]
async fn create_product_returns_location_and_etag() {
    let response = Gateway::new().send_json("POST", "/products", &[], KETTLE).await;
    assert_eq!(
        (response.status.as_u16(), response.header("location"), response.header("etag")),
        (201, Some(product_path().as_str()), Some("\"1\""))
    );
    assert_eq!(response.header("idempotency-replayed"), None);
    let expected = format!(
        r#"{{"id":"{ID}","name":"Kettle","description":"steel","price":24.9,"quantity":7,"category":"kitchen","isActive":false,"version":1,"#
    ) + r#""createdAt":"2026-01-01T00:00:00.005Z","updatedAt":"2026-01-01T00:00:00.005Z"}"#;
    assert_eq!(response.text, expected);
}

#[tokio::test]
async fn optional_fields_have_defaults() {
    let gateway = Gateway::new();
    let response =
        gateway.send_json("POST", "/products", &[], r#"{"name": "Kettle", "price": 0, "quantity": 0, "category": "kitchen"}"#).await;
    assert_eq!(response.status.as_u16(), 201);
    let input = gateway.products.inputs.lock().unwrap()[0].clone();
    assert_eq!((input.description.as_str(), input.is_active), ("", Some(true)));
}

#[tokio::test]
async fn all_violations_are_reported_at_once() {
    let gateway = Gateway::new();
    assert_eq!(
        gateway.send_json("POST", "/products", &[], "{}").await.errors(),
        ["name: required", "price: required", "quantity: required", "category: required"]
    );
    let invalid = r#"{"name": "", "price": 1.005, "quantity": -1, "category": "kitchen"}"#;
    let errors = ["price: too_many_decimals", "name: required", "quantity: out_of_range"];
    assert_eq!(gateway.send_json("POST", "/products", &[], invalid).await.errors(), errors);
    assert_eq!(gateway.send_json("PUT", &product_path(), &[], invalid).await.errors(), errors);
}

#[tokio::test]
async fn price_must_be_an_exact_plain_decimal() {
    let gateway = Gateway::new();
    let price = |text: &str| KETTLE.replace("24.90", text);
    assert_eq!(gateway.send_json("POST", "/products", &[], &price("1e2")).await.errors(), ["price: not_a_decimal"]);
    assert_eq!(gateway.send_json("POST", "/products", &[], &price("0.001")).await.errors(), ["price: too_many_decimals"]);
    assert_eq!(gateway.send_json("POST", "/products", &[], &price("99999999999999999999")).await.errors(), ["price: out_of_range"]);
    assert_eq!(gateway.send_json("POST", "/products", &[], &price("-0.01")).await.errors(), ["price: out_of_range"]);
    gateway.send_json("POST", "/products", &[], &price("\"24.90\"")).await.problem(400, "invalid_body");
    assert_eq!(gateway.send_json("POST", "/products", &[], &price("9999999.99")).await.json()["price"].to_string(), "9999999.99");
}

#[tokio::test]
async fn replayed_response_is_marked() {
    let response = Gateway::new().send_json("POST", "/products", &[("idempotency-key", USED_KEY)], KETTLE).await;
    assert_eq!((response.status.as_u16(), response.header("idempotency-replayed")), (201, Some("true")));
}

#[tokio::test]
async fn replayed_error_is_marked() {
    let gateway = Gateway::new();
    let mut error = Status::from(Rejection::new(&reasons::IDEMPOTENCY_KEY_REUSED, "the key was used with another body"));
    error.metadata_mut().insert("idempotency-replayed", "true".parse().unwrap());
    *gateway.products.error.lock().unwrap() = Some(error);
    let response = gateway.send_json("POST", "/products", &[("idempotency-key", "k")], KETTLE).await;
    response.problem(422, "idempotency_key_reused");
    assert_eq!(response.header("idempotency-replayed"), Some("true"));
}

#[tokio::test]
async fn if_none_match_returns_304() {
    let gateway = Gateway::new();
    let response = gateway.send_empty("GET", &product_path(), &[]).await;
    assert_eq!(
        (response.status.as_u16(), response.header("etag"), response.header("cache-control")),
        (200, Some("\"3\""), Some("private, no-cache"))
    );
    for tag in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
        let response = gateway.send_empty("GET", &product_path(), &[("if-none-match", tag)]).await;
        assert_eq!((response.status.as_u16(), response.header("etag"), response.text.as_str()), (304, Some("\"3\""), ""), "{tag}");
    }
    assert_eq!(gateway.send_empty("GET", &product_path(), &[("if-none-match", "\"2\"")]).await.status.as_u16(), 200);
    gateway.send_empty("GET", &product_path(), &[("if-none-match", "3")]).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn head_returns_get_headers_without_body() {
    let response = Gateway::new().send_empty("HEAD", &product_path(), &[]).await;
    assert_eq!((response.status.as_u16(), response.header("etag"), response.text.as_str()), (200, Some("\"3\""), ""));
}

#[tokio::test]
async fn if_match_guards_put_and_delete() {
    let gateway = Gateway::new();
    for tag in ["\"3\"", "*", "\"1\", \"3\"", "W/\"3\", \"3\""] {
        let response = gateway.send_json("PUT", &product_path(), &[("if-match", tag)], KETTLE).await;
        assert_eq!((response.status.as_u16(), response.header("etag")), (200, Some("\"4\"")), "{tag}");
        assert_eq!(gateway.send_empty("DELETE", &product_path(), &[("if-match", tag)]).await.status.as_u16(), 204, "{tag}");
    }
    for tag in ["\"2\"", "\"1\", \"2\"", "W/\"3\"", "\"abc\""] {
        gateway.send_json("PUT", &product_path(), &[("if-match", tag)], KETTLE).await.problem(412, "version_mismatch");
        gateway.send_empty("DELETE", &product_path(), &[("if-match", tag)]).await.problem(412, "version_mismatch");
    }
    gateway.send_json("PUT", &product_path(), &[("if-match", "3")], KETTLE).await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn list_forwards_its_filters() {
    let gateway = Gateway::new();
    let path = "/products?category=kitchen&isActive=true&q=ket%20tle&minPrice=1&maxPrice=29.99&sort=price_desc&limit=5&cursor=abc";
    let response = gateway.send_empty("GET", path, &[]).await;
    assert_eq!((response.status.as_u16(), response.json()["nextCursor"].as_str()), (200, Some("more")));
    assert_eq!(response.json()["items"][0]["name"], "Kettle");
    let expected = FindAllRequest {
        category: Some("kitchen".to_owned()),
        is_active: Some(true),
        q: Some("ket tle".to_owned()),
        min_price_minor: Some(100),
        max_price_minor: Some(2999),
        sort: ProductSort::PriceDesc.into(),
        limit: 5,
        cursor: "abc".to_owned(),
    };
    assert_eq!(gateway.products.list_request.lock().unwrap().take(), Some(expected));
}

#[tokio::test]
async fn invalid_query_value_is_an_invalid_parameter() {
    let gateway = Gateway::new();
    for query in ["limit=0", "limit=1&limit=1", "page=2", "sort=random", "isActive=1", "minPrice=1.005", "minPrice=-1"] {
        gateway.send_empty("GET", &format!("/products?{query}"), &[]).await.problem(400, "invalid_parameter");
    }
    gateway.send_empty("GET", "/products?cursor=forged", &[]).await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn upstream_error_text_is_not_exposed() {
    let gateway = Gateway::new();
    for (status, http, code) in [
        (Status::unavailable("connect to 10.0.0.7:5000 failed"), 503, "upstream_unavailable"),
        (Status::unauthenticated("connect to 10.0.0.7:5000 failed"), 500, "internal"),
        (Status::unknown("connect to 10.0.0.7:5000 failed"), 500, "internal"),
        (Status::deadline_exceeded("connect to 10.0.0.7:5000 failed"), 504, "deadline_exceeded"),
    ] {
        *gateway.products.error.lock().unwrap() = Some(status);
        let response = gateway.send_empty("GET", &product_path(), &[]).await;
        response.problem(http, code);
        assert!(!response.text.contains("10.0.0.7"), "{}", response.text);
        assert_eq!(response.header("retry-after").is_some(), http == 503);
    }
}
