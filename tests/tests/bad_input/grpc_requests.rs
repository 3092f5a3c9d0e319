//! Invalid requests on the gRPC ports that no gRPC library would send: no effect, and a proper
//! error.

use palisade_tests::{Shop, eventually, shop::ALL_SCOPES, shop_helpers::create_product, unique};
use reqwest::{Method, Response};

const FIND_ALL: &str = "/palisade.products.v1.ProductsService/FindAll";
const REMOVE: &str = "/palisade.products.v1.ProductsService/Remove";

/// Sends a request and returns the HTTP status, and the gRPC status of a trailers-only response.
async fn send(method: Method, path: &str, content_type: Option<&str>, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Option<String>) {
    let shop = Shop::shared();
    let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let token = shop.service_token("products", "alice", ALL_SCOPES);
    let mut request = http.request(method, shop.grpc_url("products") + path).bearer_auth(token).header("te", "trailers").body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response: Response = request.send().await.unwrap();
    (response.status().as_u16(), response.headers().get("grpc-status").map(|status| status.to_str().unwrap().to_owned()))
}

/// Encodes one length-prefixed message.
fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[flag][..], &length.to_be_bytes(), message].concat()
}

/// Encodes a `RemoveRequest` for this product: field 1, a string.
fn remove(product: &str) -> Vec<u8> {
    [&[0x0a, u8::try_from(product.len()).unwrap()][..], product.as_bytes()].concat()
}

#[tokio::test]
async fn only_post_with_grpc_content_type_is_a_call() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let product = create_product(&seller, 1).await;
    let body = framed(0, &remove(&product));
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (status, _) = send(method.clone(), REMOVE, Some("application/grpc"), &[], body.clone()).await;
        assert_eq!(status, 405, "{method}");
    }
    for content_type in [None, Some("application/json"), Some("text/plain"), Some("application/grpc-web"), Some("application/grpcx")] {
        let (status, _) = send(Method::POST, REMOVE, content_type, &[], body.clone()).await;
        assert_eq!(status, 415, "{content_type:?}");
    }
    seller.get(format!("/products/{product}")).await.ok(200);
    send(Method::POST, REMOVE, Some("application/grpc+proto"), &[], body).await;
    seller.get(format!("/products/{product}")).await.problem(404, "not_found");
}

#[tokio::test]
async fn malformed_frames_have_no_effect() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let product = create_product(&seller, 1).await;
    let message = remove(&product);
    let bodies = [
        Vec::new(),
        vec![0, 0, 0],
        framed(1, &message),
        framed(2, &message),
        framed(255, &message),
        framed(0, &message)[..10].to_vec(),
        framed(0, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        framed(0, &[0x0a, 2, 0xff, 0xfe]),
        framed(0, &[0x0b; 200]),
        framed(0, &vec![0x0a; 1024 * 1024]),
    ];
    for body in bodies {
        let about = format!("{:?}…", &body[..body.len().min(20)]);
        send(Method::POST, REMOVE, Some("application/grpc"), &[], body).await;
        assert_eq!(seller.get(format!("/products/{product}")).await.status, 200, "{about} was executed");
    }
}

#[tokio::test]
async fn unary_call_with_two_messages_is_rejected() {
    let seller = Shop::shared().client("seller", ALL_SCOPES);
    let (first, second) = (create_product(&seller, 1).await, create_product(&seller, 1).await);
    let body = [framed(0, &remove(&first)), framed(0, &remove(&second))].concat();
    let (status, grpc_status) = send(Method::POST, REMOVE, Some("application/grpc"), &[], body).await;
    assert_eq!((status, grpc_status.as_deref()), (200, Some("12")));
    seller.get(format!("/products/{first}")).await.ok(200);
    seller.get(format!("/products/{second}")).await.ok(200);
}

#[tokio::test]
async fn malformed_grpc_timeout_is_never_unlimited() {
    for timeout in ["-1S", "1", "S", "1.5S", "1 S", "1X", "+1S", "1S1S", "123456789S"] {
        let (status, grpc_status) =
            send(Method::POST, FIND_ALL, Some("application/grpc"), &[("grpc-timeout", timeout)], framed(0, &[])).await;
        // Rejected, or served with the server's own deadline. A response must arrive either way.
        assert!(status == 200 || status == 400, "{timeout}: {status} {grpc_status:?}");
    }
    let (status, _) = send(Method::POST, FIND_ALL, Some("application/grpc"), &[("grpc-timeout", "99999999H")], framed(0, &[])).await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn connection_survives_rejected_calls() {
    let unknown = format!("/{}", unique("nope"));
    for path in [unknown.as_str(), "/", FIND_ALL] {
        for encoding in ["gzip", "nonsense"] {
            let (status, _) = send(Method::POST, path, Some("application/grpc"), &[("grpc-encoding", encoding)], framed(1, b"x")).await;
            assert!([200, 404].contains(&status), "{path} {encoding}: {status}");
        }
    }
    let (status, grpc_status) = send(Method::POST, FIND_ALL, Some("application/grpc"), &[], framed(0, &[])).await;
    assert_eq!((status, grpc_status), (200, None), "a success has its status in the trailers");
}

#[tokio::test]
async fn message_over_the_limit_is_resource_exhausted() {
    let (at_limit, over_limit) = (256 * 1024, 256 * 1024 + 1);
    for (size, expected) in [(at_limit, None), (over_limit, Some("8")), (5 * 1024 * 1024, Some("8"))] {
        // A field with an unknown number, which is ignored.
        let length = size - 5;
        let varint = |value: usize, shift: u32| u8::try_from(value >> shift & 0x7f).unwrap();
        let field = [0x7a, varint(length, 0) | 0x80, varint(length, 7) | 0x80, varint(length, 14) | 0x80, varint(length, 21)];
        let message = [&field[..], &vec![b'x'; length]].concat();
        // A busy service may be unavailable for a moment.
        let answer = async || {
            let answer = send(Method::POST, FIND_ALL, Some("application/grpc"), &[], framed(0, &message)).await;
            (answer.1.as_deref() != Some("14")).then_some(answer)
        };
        let (status, grpc_status) = eventually(answer).await;
        assert_eq!((status, grpc_status.as_deref()), (200, expected), "{size} bytes");
    }
}
