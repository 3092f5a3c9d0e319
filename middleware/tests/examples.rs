//! Runs the examples as `cargo run --example` does, and calls them.
#![expect(clippy::unwrap_used, reason = "an unwrap in a test is an assertion")]

#[expect(dead_code, reason = "main is used by cargo run only")]
#[path = "../examples/grpc_service.rs"]
mod grpc_service;
#[expect(dead_code, reason = "main is used by cargo run only")]
#[path = "../examples/http_service.rs"]
mod http_service;

use palisade_middleware::{auth::keys::SigningKey, server::accept};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;

fn generate_key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

#[tokio::test]
async fn http_service() {
    let (key, shutdown) = (generate_key(), CancellationToken::new());
    let listener = accept::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let token = http_service::token(&key, "alice").unwrap();
    let calls = async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        for (path, token, status, body) in [
            ("/hello", "", 200, "hello\n"),
            ("/things/7", token.as_str(), 200, "thing 7, for alice\n"),
            ("/things/8", token.as_str(), 404, "unknown thing"),
            ("/things/7", "", 401, "a bearer token is required"),
        ] {
            let request = client.get(format!("http://{address}{path}"));
            let request = if token.is_empty() { request } else { request.bearer_auth(token) };
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}");
            let text = response.text().await.unwrap();
            assert!(text.contains(body), "{path}: {text}");
        }
        drop(client);
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(http_service::serve(listener, &key, shutdown.clone()), calls);
    served.unwrap();
}

#[tokio::test]
async fn grpc_service() {
    let (key, shutdown) = (generate_key(), CancellationToken::new());
    let listener = accept::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let calls = async {
        let mut client = grpc_service::connect(address, &key).unwrap();
        assert_eq!(grpc_service::check(&mut client, "heart").await.unwrap(), ServingStatus::Serving);
        let refused = grpc_service::check(&mut client, "spoon").await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::NotFound, "unknown organ"));
        let mut untrusted = grpc_service::connect(address, &generate_key()).unwrap();
        assert_eq!(grpc_service::check(&mut untrusted, "heart").await.unwrap_err().code(), Code::Unauthenticated);
        shutdown.cancel();
    };
    let (served, ()) = tokio::join!(grpc_service::serve(listener, &key, shutdown.clone()), calls);
    served.unwrap();
}
