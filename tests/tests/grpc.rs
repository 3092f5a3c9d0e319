//! gRPC ports, as used by services and by operators with `grpcurl`: authorization, errors, health,
//! reflection.
#![expect(clippy::unwrap_used, reason = "unwrap is an assertion in tests")]

use std::collections::BTreeSet;

use palisade_proto::{
    FILE_DESCRIPTOR_SET,
    orders::v1::{self as orders, orders_service_client::OrdersServiceClient},
    products::v1::{self as products, products_service_client::ProductsServiceClient},
};
use palisade_tests::{Shop, shop::ALL_SCOPES, shop_helpers::create_product, unique};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

/// Internal methods of the order saga, not callable by users.
const INTERNAL: [&str; 6] =
    ["ReserveStock", "ConfirmReservation", "ReleaseReservation", "ReviseReservation", "FulfilReservation", "ListReservations"];

fn channel(service: &str) -> Channel {
    Shop::shared().grpc_channel(service)
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// Returns every method of the API: host service, name, path.
fn methods() -> Vec<(&'static str, String, String)> {
    let files = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in files.file.iter().filter(|file| file.package().starts_with("palisade.")) {
        let host = if file.package().contains("products") { "products" } else { "orders" };
        for service in &file.service {
            for method in &service.method {
                methods.push((host, method.name().to_owned(), format!("/{}.{}/{}", file.package(), service.name(), method.name())));
            }
        }
    }
    assert_eq!(methods.len(), 23, "{methods:?}");
    methods
}

/// Sends a call without a client library, which would end at the timeout by itself. Returns the
/// `grpc-status` of a trailers-only response.
async fn send_raw(request: http::Request<()>, message: &[u8]) -> String {
    let address = request.uri().authority().unwrap().as_str().to_owned();
    let connection = tokio::net::TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(connection).await.unwrap();
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(async move { drop(connection.await) });
    let (response, mut body) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    // The server may have answered, and closed the stream, before it gets the message.
    let _ = body.send_data(message.to_vec().into(), true);
    let head = response.await.unwrap();
    head.headers()["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn no_handler_runs_after_its_deadline() {
    let shop = Shop::shared();
    let token = shop.service_token("products", "hasty", ALL_SCOPES);
    let name = unique("late");
    let create = products::CreateProductRequest {
        product: Some(products::ProductInput {
            name: name.clone(),
            category: name.clone(),
            quantity: 1,
            price_minor: 100,
            ..products::ProductInput::default()
        }),
        ..products::CreateProductRequest::default()
    };
    let mut message = vec![0; 5];
    create.encode(&mut message).unwrap();
    let length = u32::try_from(message.len() - 5).unwrap();
    message[1..5].copy_from_slice(&length.to_be_bytes());
    for timeout in ["1n", "0n", "0S"] {
        let request = http::Request::post(format!("{}/palisade.products.v1.ProductsService/CreateProduct", shop.grpc_url("products")));
        let request = request.header("content-type", "application/grpc").header("te", "trailers").header("grpc-timeout", timeout);
        let status = send_raw(request.header("authorization", format!("Bearer {token}")).body(()).unwrap(), &message).await;
        assert_eq!(status, "4", "{timeout}");
    }
    let list = with_token(products::FindAllRequest { category: Some(name), ..products::FindAllRequest::default() }, &token);
    let found = ProductsServiceClient::new(channel("products")).find_all(list).await.unwrap().into_inner();
    assert!(found.items.is_empty(), "{found:?}");
}

/// Calls a method with an empty message.
async fn call(host: &str, path: &str, token: Option<&str>) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel(host));
    grpc.ready().await.unwrap();
    let request = token.map_or_else(|| Request::new(()), |token| with_token((), token));
    grpc.unary(request, PathAndQuery::try_from(path).unwrap(), ProstCodec::<(), ()>::default()).await.map(|_| ())
}

/// Asserts the common error format.
#[track_caller]
fn assert_rejected(status: &Status, code: Code, reason: &str) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!((status.code(), info.reason.as_str(), info.domain.as_str()), (code, reason, "palisade"), "{status:?}");
}

#[tokio::test]
async fn methods_require_token_for_their_service() {
    let shop = Shop::shared();
    let gateway_token = shop.token("alice", ALL_SCOPES);
    for (host, _, path) in methods() {
        assert_rejected(&call(host, &path, None).await.unwrap_err(), Code::Unauthenticated, "UNAUTHENTICATED");
        let other = if host == "products" { "orders" } else { "products" };
        let wrong_audience = shop.service_token(other, "alice", ALL_SCOPES);
        for token in ["nonsense", &gateway_token, &wrong_audience] {
            let status = call(host, &path, Some(token)).await.unwrap_err();
            assert_rejected(&status, Code::Unauthenticated, "UNAUTHENTICATED");
            assert!(!status.message().contains("aud"), "the failed check must not be revealed: {status:?}");
        }
    }
}

#[tokio::test]
async fn user_tokens_cannot_call_internal_methods() {
    // Even a user token that carries the internal scope is rejected.
    let token = Shop::shared().service_token("products", "alice", &format!("{ALL_SCOPES} products:reserve"));
    for (host, _, path) in methods().into_iter().filter(|(_, name, _)| INTERNAL.contains(&name.as_str())) {
        assert_rejected(&call(host, &path, Some(&token)).await.unwrap_err(), Code::PermissionDenied, "INSUFFICIENT_SCOPE");
    }
}

#[tokio::test]
async fn methods_require_their_scope() {
    let shop = Shop::shared();
    for (host, name, path) in methods().into_iter().filter(|(_, name, _)| !INTERNAL.contains(&name.as_str())) {
        // The history names callers.
        let is_read = ["Find", "Watch"].iter().any(|verb| name.starts_with(verb)) && (host, &*name) != ("products", "FindHistory");
        let verb = if is_read { "read" } else { "write" };
        let scope = format!("{host}:{verb}");
        let others: Vec<_> = ALL_SCOPES.split(' ').filter(|other| ![scope.as_str(), "orders:admin"].contains(other)).collect();
        let refusal = call(host, &path, Some(&shop.service_token(host, "alice", &others.join(" ")))).await.unwrap_err();
        assert_rejected(&refusal, Code::PermissionDenied, "INSUFFICIENT_SCOPE");
        let answer = call(host, &path, Some(&shop.service_token(host, "alice", &scope))).await;
        assert!(answer.is_ok() || answer.is_err_and(|status| status.code() == Code::InvalidArgument), "{path} with {scope}");
    }
}

#[tokio::test]
async fn validation_errors_are_field_violations() {
    let shop = Shop::shared();
    let fields = |status: &Status| {
        assert_rejected(status, Code::InvalidArgument, "VALIDATION_FAILED");
        let details = status.get_error_details();
        details.bad_request().unwrap().field_violations.iter().map(|violation| violation.field.clone()).collect::<BTreeSet<_>>()
    };
    let token = shop.service_token("products", "alice", ALL_SCOPES);
    let bad = products::ProductInput { price_minor: -1, quantity: -1, ..Default::default() };
    let create = products::CreateProductRequest { product: Some(bad), ..Default::default() };
    let status = ProductsServiceClient::new(channel("products")).create_product(with_token(create, &token)).await.unwrap_err();
    assert_eq!(fields(&status), BTreeSet::from(["category", "name", "price", "quantity"].map(str::to_owned)));

    let token = shop.service_token("orders", "alice", ALL_SCOPES);
    let line = orders::NewOrderItem { product_id: "x".into(), quantity: 0 };
    let create = orders::CreateOrderRequest { items: vec![line], ..Default::default() };
    let status = OrdersServiceClient::new(channel("orders")).create_order(with_token(create, &token)).await.unwrap_err();
    assert_eq!(fields(&status), BTreeSet::from(["items[0].productId", "items[0].quantity"].map(str::to_owned)));
}

#[tokio::test]
async fn failed_order_has_id_and_reason() {
    let shop = Shop::shared();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1).await;
    let token = shop.service_token("orders", &unique("alice"), ALL_SCOPES);
    let mut client = OrdersServiceClient::new(channel("orders"));
    let line = orders::NewOrderItem { product_id: product, quantity: 2 };
    let create = orders::CreateOrderRequest { items: vec![line], ..Default::default() };
    let status = client.create_order(with_token(create, &token)).await.unwrap_err();
    assert_rejected(&status, Code::FailedPrecondition, "INSUFFICIENT_STOCK");
    let id = status.get_error_details().error_info().unwrap().metadata["orderId"].clone();
    let order = client.find_one(with_token(orders::FindOneRequest { id: id.clone() }, &token)).await.unwrap().into_inner();
    assert_eq!((order.status(), order.failure_reason.as_str()), (orders::OrderStatus::Failed, "insufficient_stock"));

    let other = shop.service_token("orders", &unique("mallory"), "orders:read");
    assert_rejected(&client.find_one(with_token(orders::FindOneRequest { id }, &other)).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    assert_rejected(
        &client.find_one(with_token(orders::FindOneRequest { id: "x".into() }, &other)).await.unwrap_err(),
        Code::InvalidArgument,
        "INVALID_PARAMETER",
    );
}

#[tokio::test]
async fn request_in_progress_has_retry_info() {
    let shop = Shop::shared();
    let product = create_product(&shop.client("seller", ALL_SCOPES), 1_000).await;
    let token = shop.service_token("orders", &unique("alice"), ALL_SCOPES);
    let client = OrdersServiceClient::new(channel("orders"));
    let key = unique("key");
    let calls = (0..50).map(|_| {
        let line = orders::NewOrderItem { product_id: product.clone(), quantity: 1 };
        let create = orders::CreateOrderRequest { items: vec![line], idempotency_key: key.clone(), ..Default::default() };
        let (mut client, request) = (client.clone(), with_token(create, &token));
        async move { client.create_order(request).await }
    });
    let mut ids = BTreeSet::new();
    for answer in futures_util::future::join_all(calls).await {
        match answer {
            Ok(order) => drop(ids.insert(order.into_inner().id)),
            Err(status) => {
                assert_rejected(&status, Code::Aborted, "REQUEST_IN_PROGRESS");
                assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
            }
        }
    }
    assert_eq!(ids.len(), 1, "all calls must return the same order");
}

#[tokio::test]
async fn identity_comes_only_from_the_token() {
    let shop = Shop::shared();
    let subject = unique("alice");
    let mut request = with_token(
        orders::FindAllRequest { user_id: "somebody-else".into(), ..Default::default() },
        &shop.service_token("orders", &subject, "orders:read"),
    );
    for forged in ["x-user-id", "x-forwarded-user", "x-scopes"] {
        request.metadata_mut().insert(forged, MetadataValue::from_static("somebody-else orders:admin"));
    }
    let status = OrdersServiceClient::new(channel("orders")).find_all(request).await.unwrap_err();
    assert_rejected(&status, Code::PermissionDenied, "INSUFFICIENT_SCOPE");
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let token = Shop::shared().service_token("products", "alice", ALL_SCOPES);
    for path in ["/palisade.products.v1.ProductsService/Nope", "/nope.Nope/Nope", "/palisade.orders.v1.OrdersService/FindAll", "/"] {
        assert_eq!(call("products", path, Some(&token)).await.unwrap_err().code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn health_is_served_without_a_token() {
    for (host, service) in [("products", "palisade.products.v1.ProductsService"), ("orders", "palisade.orders.v1.OrdersService")] {
        let mut health = HealthClient::new(channel(host));
        for name in ["", service] {
            let answer = health.check(HealthCheckRequest { service: name.into() }).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{host} {name:?}");
        }
        let unknown = health.check(HealthCheckRequest { service: "nope".into() }).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
    }
}

#[tokio::test]
async fn reflection_lists_the_services_without_a_token() {
    for (host, service) in [("products", "palisade.products.v1.ProductsService"), ("orders", "palisade.orders.v1.OrdersService")] {
        let question = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
        let mut reflection = ServerReflectionClient::new(channel(host));
        let mut answers = reflection.server_reflection_info(tokio_stream::iter([question])).await.unwrap().into_inner();
        let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response else {
            panic!("{host} lists no services");
        };
        assert!(list.service.iter().any(|listed| listed.name == service), "{list:?}");
    }
}
