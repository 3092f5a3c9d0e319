//! Every field of every RPC is validated by the service itself, not only by the gateway.

use palisade_proto::{
    orders::v1::{self as orders, OrderStatus, orders_service_client::OrdersServiceClient},
    products::v1::{self as products, ProductInput, products_service_client::ProductsServiceClient},
};
use palisade_tests::{Shop, shop::ALL_SCOPES, unique};
use tonic::{Code, Request, Status, transport::Channel};

fn channel(service: &str) -> Channel {
    Shop::shared().grpc_channel(service)
}

fn call<T>(service: &str, message: T) -> Request<T> {
    let token = Shop::shared().service_token(service, "alice", ALL_SCOPES);
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn valid_product() -> ProductInput {
    let name = unique("Lamp");
    ProductInput { name, description: String::new(), price_minor: 1, quantity: 1, category: "c".into(), is_active: Some(false) }
}

#[track_caller]
fn assert_invalid<T>(result: Result<T, Status>, about: &str) {
    match result {
        Ok(_) => panic!("accepted: {about}"),
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{about}: {status:?}"),
    }
}

#[tokio::test]
async fn invalid_fields_of_products_are_rejected() {
    let mut client = ProductsServiceClient::new(channel("products"));
    let list = products::FindAllRequest::default;
    for (about, request) in [
        ("sort", products::FindAllRequest { sort: 99, ..list() }),
        ("sort", products::FindAllRequest { sort: -1, ..list() }),
        ("limit", products::FindAllRequest { limit: 101, ..list() }),
        ("cursor", products::FindAllRequest { cursor: "x".into(), ..list() }),
        ("category", products::FindAllRequest { category: Some(String::new()), ..list() }),
        ("category", products::FindAllRequest { category: Some("x".repeat(101)), ..list() }),
        ("category", products::FindAllRequest { category: Some("a\0".into()), ..list() }),
        ("q", products::FindAllRequest { q: Some(String::new()), ..list() }),
        ("q", products::FindAllRequest { q: Some("x".repeat(201)), ..list() }),
        ("q", products::FindAllRequest { q: Some("a\nb".into()), ..list() }),
        ("min_price_minor", products::FindAllRequest { min_price_minor: Some(-1), ..list() }),
        ("max_price_minor", products::FindAllRequest { max_price_minor: Some(-1), ..list() }),
    ] {
        assert_invalid(client.find_all(call("products", request)).await, about);
    }
    for (about, product) in [
        ("name", ProductInput { name: " ".into(), ..valid_product() }),
        ("name", ProductInput { name: "x".repeat(201), ..valid_product() }),
        ("name", ProductInput { name: "a\u{202e}b".into(), ..valid_product() }),
        ("description", ProductInput { description: "x".repeat(4_001), ..valid_product() }),
        ("description", ProductInput { description: "\0".into(), ..valid_product() }),
        ("price_minor", ProductInput { price_minor: -1, ..valid_product() }),
        ("price_minor", ProductInput { price_minor: 1_000_000_000, ..valid_product() }),
        ("quantity", ProductInput { quantity: -1, ..valid_product() }),
        ("quantity", ProductInput { quantity: 1_000_000_001, ..valid_product() }),
        ("category", ProductInput { category: String::new(), ..valid_product() }),
        ("category", ProductInput { category: "x".repeat(101), ..valid_product() }),
    ] {
        let create = products::CreateProductRequest { product: Some(product.clone()), ..Default::default() };
        assert_invalid(client.create_product(call("products", create)).await, about);
        let id = uuid::Uuid::nil().to_string();
        let update = products::UpdateRequest { id, product: Some(product), ..Default::default() };
        assert_invalid(client.update(call("products", update)).await, about);
    }
    for (about, patch) in [
        ("name", products::ProductPatch { name: Some(" ".into()), ..Default::default() }),
        ("price_minor", products::ProductPatch { price_minor: Some(-1), ..Default::default() }),
        ("quantity", products::ProductPatch { quantity: Some(-1), ..Default::default() }),
        ("removed", products::ProductPatch { removed: vec!["name".into()], ..Default::default() }),
        ("removed", products::ProductPatch { removed: vec!["nonsense".into()], ..Default::default() }),
    ] {
        let request = products::PatchProductRequest { id: uuid::Uuid::nil().to_string(), patch: Some(patch), ..Default::default() };
        assert_invalid(client.patch_product(call("products", request)).await, about);
    }
    let adjust = |delta, reason: &str| products::AdjustStockRequest {
        product_id: uuid::Uuid::nil().to_string(),
        delta,
        reason: reason.into(),
        ..Default::default()
    };
    for (about, request) in [
        ("delta", adjust(0, "x")),
        ("delta", adjust(i64::MIN, "x")),
        ("delta", adjust(i64::MAX, "x")),
        ("reason", adjust(1, " ")),
        ("reason", adjust(1, &"x".repeat(201))),
        ("product_id", products::AdjustStockRequest { product_id: "1".into(), ..adjust(1, "x") }),
        ("idempotency_key", products::AdjustStockRequest { idempotency_key: "a b".into(), ..adjust(1, "x") }),
    ] {
        assert_invalid(client.adjust_stock(call("products", request)).await, about);
    }
    let ledger = || products::ListStockAdjustmentsRequest { product_id: uuid::Uuid::nil().to_string(), ..Default::default() };
    for (about, request) in [
        ("product_id", products::ListStockAdjustmentsRequest { product_id: "1".into(), ..ledger() }),
        ("limit", products::ListStockAdjustmentsRequest { limit: 101, ..ledger() }),
        ("cursor", products::ListStockAdjustmentsRequest { cursor: "x".into(), ..ledger() }),
    ] {
        assert_invalid(client.list_stock_adjustments(call("products", request)).await, about);
    }
    let create = products::CreateProductRequest::default();
    assert_invalid(client.create_product(call("products", create)).await, "no product");
    for key in ["a b".to_owned(), "é".to_owned(), "k".repeat(256)] {
        let create = products::CreateProductRequest { product: Some(valid_product()), idempotency_key: key.clone() };
        assert_invalid(client.create_product(call("products", create)).await, &key);
    }
    for id in ["", "1", "0192f0c123457abc8def0123456789ab"] {
        assert_invalid(client.find_one(call("products", products::FindOneRequest { id: id.into() })).await, "id");
        assert_invalid(client.find_history(call("products", products::FindHistoryRequest { id: id.into() })).await, "id");
        assert_invalid(client.remove(call("products", products::RemoveRequest { id: id.into(), ..Default::default() })).await, "id");
    }
    let id = uuid::Uuid::nil().to_string();
    for version in [0, -1] {
        let remove = products::RemoveRequest { id: id.clone(), expected_version: Some(version), ..Default::default() };
        assert_invalid(client.remove(call("products", remove)).await, "expected_version");
        let product = Some(valid_product());
        let update = products::UpdateRequest { id: id.clone(), product, expected_version: Some(version), ..Default::default() };
        assert_invalid(client.update(call("products", update)).await, "expected_version");
    }
}

#[tokio::test]
async fn absent_is_active_means_true() {
    let mut client = ProductsServiceClient::new(channel("products"));
    for (sent, stored) in [(None, true), (Some(true), true), (Some(false), false)] {
        let product = Some(ProductInput { is_active: sent, ..valid_product() });
        let create = products::CreateProductRequest { product: product.clone(), ..Default::default() };
        let created = client.create_product(call("products", create)).await.unwrap().into_inner();
        assert_eq!(created.is_active, stored, "create with {sent:?}");
        let update = products::UpdateRequest { id: created.id, product, ..Default::default() };
        assert_eq!(client.update(call("products", update)).await.unwrap().into_inner().is_active, stored, "update with {sent:?}");
    }
}

#[tokio::test]
async fn invalid_fields_of_orders_are_rejected() {
    let mut client = OrdersServiceClient::new(channel("orders"));
    let list = orders::FindAllRequest::default;
    for (about, request) in [
        ("status", orders::FindAllRequest { status: 99, ..list() }),
        ("status", orders::FindAllRequest { status: -1, ..list() }),
        ("user_id", orders::FindAllRequest { user_id: "a\0b".into(), ..list() }),
        ("user_id", orders::FindAllRequest { user_id: "x".repeat(288), ..list() }),
        ("limit", orders::FindAllRequest { limit: 101, ..list() }),
        ("cursor", orders::FindAllRequest { cursor: "x".into(), ..list() }),
        ("product_id", orders::FindAllRequest { product_id: "x".into(), ..list() }),
        ("created_from", orders::FindAllRequest { created_from: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }), ..list() }),
        ("created_to", orders::FindAllRequest { created_to: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }), ..list() }),
        ("user_id", orders::FindAllRequest { user_id: "alice".into(), all_users: true, ..list() }),
    ] {
        assert_invalid(client.find_all(call("orders", request)).await, about);
    }
    let item = |product_id: &str, quantity| orders::NewOrderItem { product_id: product_id.into(), quantity };
    let product = uuid::Uuid::nil().to_string();
    let create = orders::CreateOrderRequest::default;
    for (about, request) in [
        ("items", create()),
        ("items", orders::CreateOrderRequest { items: vec![item(&product, 1); 101], ..create() }),
        ("product_id", orders::CreateOrderRequest { items: vec![item("x", 1)], ..create() }),
        ("quantity", orders::CreateOrderRequest { items: vec![item(&product, 0)], ..create() }),
        ("quantity", orders::CreateOrderRequest { items: vec![item(&product, 1_000_001)], ..create() }),
        ("max_total", orders::CreateOrderRequest { items: vec![item(&product, 1)], max_total_minor: Some(-1), ..create() }),
        ("max_total", orders::CreateOrderRequest { items: vec![item(&product, 1)], max_total_minor: Some(1_000_000_000_000), ..create() }),
        ("user_id", orders::CreateOrderRequest { items: vec![item(&product, 1)], user_id: "a\0b".into(), ..create() }),
        ("idempotency_key", orders::CreateOrderRequest { items: vec![item(&product, 1)], idempotency_key: "a b".into(), ..create() }),
    ] {
        assert_invalid(client.create_order(call("orders", request)).await, about);
    }
    for id in ["", "1", "0192f0c123457abc8def0123456789ab"] {
        assert_invalid(client.find_one(call("orders", orders::FindOneRequest { id: id.into() })).await, "id");
        assert_invalid(client.remove(call("orders", orders::RemoveRequest { id: id.into(), ..Default::default() })).await, "id");
        assert_invalid(client.find_history(call("orders", orders::FindHistoryRequest { id: id.into() })).await, "id");
        let watch = orders::WatchOrderRequest { id: id.into(), after_sequence: 0 };
        assert_invalid(client.watch_order(call("orders", watch)).await, "id");
        let update = orders::UpdateStatusRequest { id: id.into(), status: OrderStatus::Cancelled.into(), ..Default::default() };
        assert_invalid(client.update_status(call("orders", update)).await, "id");
    }
    for status in [0, 99, -1] {
        let update = orders::UpdateStatusRequest { id: product.clone(), status, ..Default::default() };
        assert_invalid(client.update_status(call("orders", update)).await, "status");
    }
    let watch = orders::WatchOrderRequest { id: product, after_sequence: -1 };
    assert_invalid(client.watch_order(call("orders", watch)).await, "after_sequence");
}
