//! The `OpenAPI` document and the documentation page.

use std::collections::BTreeSet;

use palisade_gateway::METHODS;
use palisade_middleware::method_table::Access;
use serde_json::Value;

use crate::Gateway;

const VERBS: [&str; 5] = ["get", "put", "patch", "post", "delete"];

async fn document() -> Value {
    Gateway::new().send_empty("GET", "/openapi.json", &[]).await.json()
}

/// Returns each operation with its verb and path, in the notation of the method table.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| VERBS.into_iter().map(move |verb| (verb, path, &item[verb])));
    let operations = operations.filter(|(_, _, operation)| operation.is_object());
    operations.map(|(verb, path, operation)| (verb.to_uppercase(), path.clone(), operation.clone())).collect()
}

/// Returns the alternative scopes of an operation.
fn scopes(operation: &Value) -> Vec<&str> {
    let alternatives = operation["security"].as_array().map(Vec::as_slice).unwrap_or_default();
    alternatives.iter().flat_map(|alternative| alternative["bearer"].as_array().unwrap()).map(|scope| scope.as_str().unwrap()).collect()
}

#[tokio::test]
async fn document_matches_the_method_table() {
    let document = document().await;
    assert_eq!(document["openapi"], "3.1.0");
    let documented = operations(&document);
    let documented: BTreeSet<_> =
        documented.iter().map(|(verb, path, operation)| (verb.as_str(), path.as_str(), scopes(operation))).collect();
    let served = METHODS.iter().map(|method| {
        let scopes = match method.access {
            Access::Public => vec![],
            Access::Scope(scope) => vec![scope],
            Access::AnyScope(scopes) => scopes.to_vec(),
            Access::Service { .. } => panic!("no user can call {method:?}"),
        };
        (method.verb, method.path, scopes)
    });
    assert_eq!(documented, served.collect());
}

#[tokio::test]
async fn every_operation_documents_its_error_responses() {
    let document = document().await;
    for (verb, path, operation) in operations(&document) {
        let mut expected = vec!["400", "429", "500", "503", "504"];
        if !scopes(&operation).is_empty() {
            expected.extend(["401", "403"]);
        }
        if operation["requestBody"].is_object() {
            expected.extend(["413", "415"]);
        }
        if path.contains('{') {
            expected.push("404");
        }
        for status in expected {
            let mut response = &operation["responses"][status];
            if let Some(reference) = response["$ref"].as_str() {
                response = document.pointer(reference.trim_start_matches('#')).unwrap();
            }
            let problem = &response["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/Problem", "{verb} {path} {status}");
        }
    }
}

#[tokio::test]
async fn every_reference_resolves() {
    let document = document().await;
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

fn collect_references(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_references(member, references));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        _ => {}
    }
}

#[tokio::test]
async fn schema_names_match_the_contract() {
    let document = document().await;
    for (schema, expected) in [
        ("ProductInput", "name description price quantity category isActive"),
        ("Product", "id name description price quantity category isActive version createdAt updatedAt"),
        ("ProductPage", "items nextCursor"),
        ("ProductPatch", "name description price quantity category isActive"),
        ("ProductHistory", "items"),
        ("ProductChange", "version changes actor time"),
        ("ChangedFields", "name description price category isActive"),
        ("TextEdit", "from to"),
        ("PriceEdit", "from to"),
        ("FlagEdit", "from to"),
        ("NewStockAdjustment", "delta reason"),
        ("StockAdjustment", "id productId kind delta reason quantityAfter actor orderId createdAt"),
        ("StockAdjustmentPage", "items nextCursor"),
        ("NewOrder", "items userId maxTotal"),
        ("NewOrderItem", "productId quantity"),
        ("Order", "id userId items total status failureReason revision createdAt updatedAt removedAt removedBy"),
        ("OrderRevision", "items maxTotal"),
        ("PendingRevision", "items requestedAt"),
        ("RequestedItem", "productId quantity"),
        ("OrderItem", "productId name unitPrice quantity subtotal"),
        ("OrderHistory", "items"),
        ("OrderChange", "version from to reason actor time"),
        ("Actor", "role subject service"),
        ("Problem", "type title status detail code instance requestId traceId errors orderId allowed"),
    ] {
        let names: BTreeSet<_> =
            document["components"]["schemas"][schema]["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, expected.split(' ').collect(), "{schema}");
    }
    let required = &document["components"]["schemas"]["ProductInput"]["required"];
    assert_eq!(*required, serde_json::json!(["name", "price", "quantity", "category"]));
}

#[tokio::test]
async fn docs_page_loads_only_from_its_own_host() {
    let gateway = Gateway::new();
    let page = gateway.send_empty("GET", "/docs", &[]).await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let assets = page.text.split('"').filter(|text| text.starts_with("/docs/"));
    let mut count = 0;
    for asset in assets {
        let response = gateway.send_empty("GET", asset, &[]).await;
        assert!(response.status.is_success() && !response.text.is_empty(), "{asset}");
        count += 1;
    }
    assert_eq!(count, 3);
    assert!(!page.text.contains("//"), "the page loads nothing from other hosts");
    gateway.send_empty("GET", "/docs/swagger-initializer.js", &[]).await.problem(404, "not_found");
}

#[test]
fn public_methods_are_constant_documents() {
    // Work without a caller would be outside of every fair share but that of an address.
    for method in METHODS.iter().filter(|method| method.access == Access::Public) {
        assert!(method.static_content, "{} {}", method.verb, method.path);
    }
}

#[test]
fn lists_and_orders_cost_more_than_reads() {
    let cost = |verb, path| METHODS.iter().find(|method| (method.verb, method.path) == (verb, path)).unwrap().cost;
    let read = cost("GET", "/products/{id}");
    for (verb, path) in [
        ("GET", "/products"),
        ("GET", "/orders"),
        ("GET", "/products/{id}/history"),
        ("GET", "/orders/{id}/history"),
        ("POST", "/orders"),
        ("POST", "/products"),
        ("PUT", "/products/{id}"),
        ("PATCH", "/products/{id}"),
    ] {
        assert!(cost(verb, path) > read, "{verb} {path}");
    }
}
