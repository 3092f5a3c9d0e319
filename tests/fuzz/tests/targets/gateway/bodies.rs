//! JSON bodies of all routes, and amounts of money in them.

use axum::body::Body;
use http::{Request, StatusCode};
use palisade_proto::products::v1::ProductInput;
use serde_json::Value;

use super::{Answer, GATEWAY};
use crate::fake_services::ID;

/// Fields that a client may send, by the routes with a body.
const PRODUCT: &[&str] = &["name", "description", "price", "quantity", "category", "isActive"];
const ADJUSTMENT: &[&str] = &["delta", "reason"];
const ORDER: &[&str] = &["items", "maxTotal", "userId"];
const STATUS: &[&str] = &["status"];

fn routes() -> [(&'static str, String, &'static [&'static str]); 7] {
    [
        ("POST", "/products".to_owned(), PRODUCT),
        ("PUT", format!("/products/{ID}"), PRODUCT),
        ("PATCH", format!("/products/{ID}"), PRODUCT),
        ("POST", format!("/products/{ID}/stock-adjustments"), ADJUSTMENT),
        ("POST", "/orders".to_owned(), ORDER),
        ("PUT", format!("/orders/{ID}"), ORDER),
        ("PUT", format!("/orders/{ID}/status"), STATUS),
    ]
}

/// Sends a body and returns the answer with the inputs that the products service received.
fn send(verb: &str, path: &str, body: &[u8]) -> (Answer, Vec<ProductInput>) {
    let request = Request::builder().method(verb).uri(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_vec())).unwrap();
    GATEWAY.with(|gateway| {
        gateway.products.inputs.lock().unwrap().clear();
        let answer = gateway.send(request);
        (answer, std::mem::take(&mut *gateway.products.inputs.lock().unwrap()))
    })
}

/// A request succeeds only with a JSON object that has no other fields than the documented ones,
/// and the service receives exactly their values. The server never fails.
pub(crate) fn json_bodies(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let routes = routes();
    let (verb, path, fields) = &routes[usize::from(*first) % routes.len()];
    let (answer, received) = send(verb, path, body);
    match answer.status {
        StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => {
            let sent: Value = serde_json::from_slice(body).expect("only JSON is accepted");
            let sent = sent.as_object().expect("only an object is accepted");
            assert!(sent.keys().all(|field| fields.contains(&field.as_str())), "{sent:?}");
            if let (Some(product), true) = (received.first(), *verb != "PATCH") {
                check_product(sent, product);
            }
        }
        StatusCode::BAD_REQUEST => {
            assert!(["invalid_body", "validation_failed"].contains(&answer.code().as_str()), "{}", answer.code());
        }
        // The rules of the fake services.
        status => assert!([StatusCode::CONFLICT, StatusCode::UNPROCESSABLE_ENTITY].contains(&status), "{status}"),
    }
}

fn check_product(sent: &serde_json::Map<String, Value>, received: &ProductInput) {
    let text = |field: &str| sent.get(field).map_or(Some(""), Value::as_str);
    assert_eq!(text("name"), Some(received.name.as_str()));
    assert_eq!(text("category"), Some(received.category.as_str()));
    assert_eq!(text("description"), Some(received.description.as_str()));
    assert_eq!(sent.get("isActive").map_or(Some(true), Value::as_bool), received.is_active);
    // An integer may also be written with a fraction or an exponent.
    assert!(sent["quantity"].as_i64().is_none_or(|quantity| quantity == received.quantity));
}

/// Returns the minor units of a plain decimal number in JSON, if it is one.
fn minor_units(text: &str) -> Option<i128> {
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, "0"), |(whole, fraction)| (whole, fraction));
    let is_number = |text: &str| !text.is_empty() && text.len() < 30 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_canonical = whole == "0" || !whole.starts_with('0');
    if !is_number(whole) || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) || !is_canonical {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let hundredths: i128 = match fraction.len() {
        0 => 0,
        1 => fraction.parse::<i128>().ok()? * 10,
        2 => fraction.parse().ok()?,
        _ => return None,
    };
    let minor = whole.parse::<i128>().ok()? * 100 + hundredths;
    Some(if is_negative { -minor } else { minor })
}

/// An amount is exact from the request through the service to the response, or the request is
/// rejected. There is no rounding, no exponent, and no overflow.
pub(crate) fn money(input: &[u8]) {
    let Some(text) = std::str::from_utf8(input).ok().map(str::trim_ascii) else { return };
    let body = format!(r#"{{"name":"a","price":{text},"quantity":1,"category":"c"}}"#);
    let expected = minor_units(text).filter(|minor| (0..=i128::from(i64::MAX)).contains(minor));
    let (answer, received) = send("POST", "/products", body.as_bytes());
    let Some(minor) = expected else {
        // Text with a comma may add fields of its own.
        assert!(answer.status == StatusCode::BAD_REQUEST || text.contains(','), "{text}");
        return;
    };
    assert_eq!(answer.status, StatusCode::CREATED, "{text}");
    assert_eq!(i128::from(received[0].price_minor), minor);
    let answered = String::from_utf8(answer.body).unwrap();
    let price = answered.split_once(r#""price":"#).and_then(|(_, rest)| rest.split(',').next()).unwrap();
    assert_eq!(minor_units(price), Some(minor), "{price}");
    assert!(!price.contains('.') || !price.ends_with('0'), "{price}");
}
