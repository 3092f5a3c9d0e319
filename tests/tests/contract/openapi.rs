//! The OpenAPI document against the server: each documented constraint is probed at its bound and
//! beyond it. What the document accepts, the server must not reject with 400, and the reverse.

use futures_util::{StreamExt, stream};
use palisade_tests::{Client, Shop, client::query, shop::ALL_SCOPES, unique};
use regex::Regex;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// Number of probes at the same time.
const CONCURRENCY: usize = 8;
/// Parameters whose values only a server can judge: a cursor is opaque.
const OPAQUE: [&str; 1] = ["cursor"];

/// Returns the schema that `schema` refers to.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference} does not resolve")),
        None => schema,
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether the document accepts `value` (the keywords of JSON Schema that it uses).
fn accepts(document: &Value, schema: &Value, value: &Value) -> bool {
    let schema = resolve(document, schema);
    if let Some(alternatives) = schema["oneOf"].as_array() {
        return alternatives.iter().filter(|alternative| accepts(document, alternative, value)).count() == 1;
    }
    let has_type = |name: &str| types(schema).contains(&name);
    let type_matches = match value {
        Value::Null => has_type("null"),
        Value::Bool(_) => has_type("boolean"),
        Value::Number(number) => has_type("number") || (has_type("integer") && number.as_f64().is_some_and(|number| number.fract() == 0.0)),
        Value::String(_) => has_type("string"),
        Value::Array(_) => has_type("array"),
        Value::Object(_) => has_type("object"),
    };
    type_matches
        && schema["enum"].as_array().is_none_or(|listed| listed.contains(value))
        && value.as_f64().is_none_or(|number| number_is_accepted(schema, number))
        && value.as_str().is_none_or(|text| text_is_accepted(schema, text))
        && value.as_array().is_none_or(|items| {
            let count = items.len() as u64;
            schema["minItems"].as_u64().is_none_or(|min| count >= min)
                && schema["maxItems"].as_u64().is_none_or(|max| count <= max)
                && items.iter().all(|item| accepts(document, &schema["items"], item))
        })
        && value.as_object().is_none_or(|members| {
            let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
            required.iter().filter_map(Value::as_str).all(|name| members.contains_key(name))
                && members.iter().all(|(name, value)| match schema["properties"].get(name) {
                    Some(property) => accepts(document, property, value),
                    None => schema["additionalProperties"] != json!(false),
                })
        })
}

fn number_is_accepted(schema: &Value, number: f64) -> bool {
    // The quotient of two decimals that are no binary fractions is only nearly whole.
    let is_multiple = |step: f64| ((number / step) - (number / step).round()).abs() < 1e-4;
    schema["minimum"].as_f64().is_none_or(|min| number >= min)
        && schema["maximum"].as_f64().is_none_or(|max| number <= max)
        && schema["multipleOf"].as_f64().is_none_or(is_multiple)
}

fn text_is_accepted(schema: &Value, text: &str) -> bool {
    let length = text.chars().count() as u64;
    schema["minLength"].as_u64().is_none_or(|min| length >= min)
        && schema["maxLength"].as_u64().is_none_or(|max| length <= max)
        && schema["pattern"].as_str().is_none_or(|pattern| Regex::new(pattern).unwrap().is_match(text))
}

/// Texts that probe the constraints of `schema`.
fn texts(schema: &Value) -> Vec<String> {
    let max = usize::try_from(schema["maxLength"].as_u64().unwrap_or(200)).unwrap();
    let lengths = [1, 98, 99, 100, 101, 102, 199, 200, 201, 202, 254, 255, 256, 257, 286, 287, 288, max, max + 1, 3_999, 4_000, 4_001];
    let mut texts: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
    texts.push(format!("  {}  ", "x".repeat(200)));
    texts.push(format!("\"{}\"", "x".repeat(255)));
    texts.push(format!("\"{}\"", "x".repeat(256)));
    texts.push(format!("\"{}\"", "\\\"".repeat(255)));
    let fixed = [
        "",
        " ",
        "a",
        "a b",
        " a ",
        "é",
        "🦀",
        "a\tb",
        "a\nb",
        "a\0b",
        "a\u{7f}",
        "a\u{85}b",
        "a\u{202e}b",
        "\u{a0}",
        "\u{a0}a\u{3000}",
        "\u{200b}",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "01890a5dac96774bbcceb302099a8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "0",
        "1",
        "12",
        "-1",
        "1.5",
        "999999999999999999",
        "9999999999999999999",
        "*",
        " * ",
        "**",
        "*,*",
        "\"3\"",
        "W/\"3\"",
        "w/\"3\"",
        "\"3\", \"4\"",
        "\"3\",,\"4\",",
        ", ,",
        "\"3\" \"4\"",
        "\"3",
        "3\"",
        "\"a b\"",
        "\"é\"",
        "\"a,b\"",
        "\"\"",
        "\"\\\"\"",
        "\"a\\\\b\"",
        "\"a\\b\"",
        "CONFIRMED",
        "confirmed",
        "newest",
        "price_asc",
        "true",
        "false",
        "TRUE",
        "yes",
        "0.01",
        "0.005",
        "1e2",
        "9999999.99",
        "9999999999999.99",
        "10000000000000",
    ];
    texts.extend(fixed.map(str::to_owned));
    texts
}

/// Values that probe the constraints of `schema`, as JSON source: `78.0` and `78` are two of them.
fn sources(document: &Value, schema: &Value) -> Vec<String> {
    let schema = resolve(document, schema);
    let mut sources: Vec<String> = texts(schema).iter().map(|text| json!(text).to_string()).collect();
    sources.extend(
        ["null", "true", "false", "{}", "[]", "[{}]", "0", "-1", "1", "78.0", "1.5", "0.01", "0.005", "24.9", "-0.01"].map(str::to_owned),
    );
    sources.extend(["9999999.99", "10000000", "1000000", "1000001", "1000000000", "1000000001", "7.8e1"].map(str::to_owned));
    // An exponent is a spelling, not a value: the document cannot forbid it for money.
    if types(schema) == ["number"] {
        sources.retain(|source| !source.contains('e') || source.parse::<f64>().is_err());
    }
    sources
}

/// Parses a text as clients serialize a parameter of this schema; `None` if it is of another type.
fn parameter_value(document: &Value, schema: &Value, text: &str) -> Option<Value> {
    let types = types(resolve(document, schema));
    if types.contains(&"string") {
        return Some(json!(text));
    }
    let plain = Regex::new(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?$").unwrap();
    match text {
        "true" | "false" => Some(json!(text == "true")),
        number if plain.is_match(number) => number.parse::<f64>().ok().map(|number| json!(number)),
        _ => None,
    }
}

/// One request of an operation with everything valid but what a probe replaces.
struct Probe<'a> {
    client: &'a Client,
    verb: &'a str,
    path: &'a str,
}

impl Probe<'_> {
    fn valid_body(&self) -> Option<Value> {
        match (self.verb, self.path) {
            ("post", "/products") | ("put", "/products/{id}") => {
                Some(json!({ "name": unique("Probe"), "price": 1, "quantity": 1, "category": "probes" }))
            }
            ("post", "/orders") | ("put", "/orders/{id}") => Some(json!({ "items": [{ "productId": Uuid::now_v7(), "quantity": 1 }] })),
            ("patch", "/products/{id}") => Some(json!({ "price": 1 })),
            ("post", "/products/{id}/stock-adjustments") => Some(json!({ "delta": 1, "reason": "probe" })),
            ("put", "/orders/{id}/status") => Some(json!({ "status": "CANCELLED" })),
            _ => None,
        }
    }

    /// Sends the request and returns whether the server rejects it as invalid.
    async fn is_rejected(&self, id: &str, pairs: &[(&str, &str)], headers: &[(&str, &str)], body: Option<String>) -> bool {
        let encoded: String = url::form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let path = self.path.replace("{id}", &encoded.replace('+', "%20")) + &query(pairs);
        let mut request = self.client.request(Method::from_bytes(self.verb.to_uppercase().as_bytes()).unwrap(), path);
        if let Some(body) = body.or_else(|| self.valid_body().map(|body| body.to_string())) {
            request = request.header("content-type", "application/json").body(body);
        }
        for (name, value) in headers {
            request = request.header(name, value.as_bytes());
        }
        request.await.status == 400
    }
}

/// Whether a text can be sent as a header and arrives as it is.
fn is_header_text(text: &str) -> bool {
    text.is_ascii() && !text.chars().any(char::is_control) && text.trim() == text
}

#[tokio::test]
async fn parameters_are_as_documented() {
    let shop = Shop::shared();
    let client = shop.client(&unique("prober"), ALL_SCOPES);
    let document = shop.anonymous().get("/openapi.json").await.ok(200);
    let mut probed = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for verb in ["get", "put", "patch", "post", "delete"] {
            let operation = &item[verb];
            if operation["security"].is_null() {
                continue;
            }
            let probe = Probe { client: &client, verb, path };
            let valid_id = Uuid::now_v7().to_string();
            for parameter in operation["parameters"].as_array().unwrap() {
                let (name, place, schema) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap(), &parameter["schema"]);
                if OPAQUE.contains(&name) {
                    continue;
                }
                let (document, probe, valid_id) = (&document, &probe, &valid_id);
                let results = stream::iter(texts(resolve(document, schema))).map(|text| async move {
                    let is_rejected = match place {
                        "query" => probe.is_rejected(valid_id, &[(name, &text)], &[], None).await,
                        "header" if is_header_text(&text) => probe.is_rejected(valid_id, &[], &[(name, &text)], None).await,
                        // An empty segment is another path.
                        "path" if !text.is_empty() => probe.is_rejected(&text, &[], &[], None).await,
                        _ => return 0,
                    };
                    let value = parameter_value(document, schema, &text);
                    let is_documented = value.is_some_and(|value| accepts(document, schema, &value));
                    assert_eq!(is_rejected, !is_documented, "{verb} {path} {place} {name}: {text:?} against {schema}");
                    1
                });
                probed += results.buffer_unordered(CONCURRENCY).fold(0, async |sum, one| sum + one).await;
            }
        }
    }
    assert!(probed > 2_000, "{probed} probes");
}

#[tokio::test]
async fn bodies_are_as_documented() {
    let shop = Shop::shared();
    let client = shop.client(&unique("prober"), ALL_SCOPES);
    let document = shop.anonymous().get("/openapi.json").await.ok(200);
    let id = Uuid::now_v7().to_string();
    let mut probed = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for verb in ["put", "patch", "post"] {
            let Some(schema) = item[verb].pointer("/requestBody/content/application~1json/schema") else { continue };
            let probe = Probe { client: &client, verb, path };
            let valid = probe.valid_body().unwrap();
            assert!(accepts(&document, schema, &valid), "{verb} {path}: {valid}");
            for (pointer, property) in properties(&document, schema, "") {
                let parent = pointer.rsplit_once('/').unwrap().0;
                let name = pointer.rsplit_once('/').unwrap().1;
                let mut bodies: Vec<Value> = Vec::new();
                for source in sources(&document, property) {
                    let mut body = valid.clone();
                    // A number keeps its spelling until the body is sent.
                    body.pointer_mut(parent).unwrap()[name] = json!(format!("\u{1}{source}\u{1}"));
                    bodies.push(body);
                }
                let mut without = valid.clone();
                without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
                bodies.push(without);
                let mut unknown = valid.clone();
                unknown.pointer_mut(parent).unwrap()["unknown"] = json!(1);
                bodies.push(unknown);
                probed += bodies.len();
                let (document, probe, id, pointer) = (&document, &probe, &id, &pointer);
                let results = stream::iter(bodies).map(|body| async move {
                    let text = unquote(&body.to_string());
                    let is_rejected = probe.is_rejected(id, &[], &[], Some(text.clone())).await;
                    let is_documented = accepts(document, schema, &serde_json::from_str(&text).unwrap());
                    assert_eq!(is_rejected, !is_documented, "{verb} {path} {pointer}: {text:.300}");
                });
                results.buffer_unordered(CONCURRENCY).for_each(|()| async {}).await;
            }
        }
    }
    assert!(probed > 500, "{probed} probes");
}

/// Returns the properties of an object schema and of the items of its arrays, by JSON pointer.
fn properties<'a>(document: &'a Value, schema: &'a Value, pointer: &str) -> Vec<(String, &'a Value)> {
    let mut all = Vec::new();
    for (name, property) in resolve(document, schema)["properties"].as_object().into_iter().flatten() {
        let pointer = format!("{pointer}/{name}");
        all.push((pointer.clone(), property));
        all.extend(properties(document, &resolve(document, property)["items"], &format!("{pointer}/0")));
    }
    all
}

/// Replaces each marked string by the JSON source in it.
fn unquote(body: &str) -> String {
    let marked = Regex::new(r#""\\u0001(.*)\\u0001""#).unwrap();
    let Some(found) = marked.captures(body) else { return body.to_owned() };
    let source: String = serde_json::from_str(&format!("\"{}\"", &found[1])).unwrap();
    body.replace(&found[0], &source)
}

#[tokio::test]
async fn event_stream_is_documented_as_text() {
    let document = Shop::shared().anonymous().get("/openapi.json").await.ok(200);
    let stream = &document["paths"]["/orders/{id}/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"];
    assert_eq!(stream["type"], "string", "{stream}");
}
