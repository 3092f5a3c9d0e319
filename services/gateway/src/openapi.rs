//! `OpenAPI` document: generated from the handlers, completed with shared responses and headers.

use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        Components, ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi as Spec, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, ParameterBuilder, ParameterIn, PathItem},
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::router;

/// Document without paths; the router adds them.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Palisade",
        description = "Products and orders.\n\nEvery response has `x-request-id` (the client's own if it is 1 to 64 letters, digits or hyphens) \
            and `x-trace-id`. Money is a JSON number with its exact value. Errors are RFC 9457 problems with a stable `code`. \
            5xx and 429 responses are never stored for an `Idempotency-Key`."
    ),
    components(schemas(Problem)),
    tags((name = "products"), (name = "orders"), (name = "documentation"))
)]
pub(crate) struct Document;

/// Error response (RFC 9457 problem details).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "schema only: the respond layer writes the JSON")]
pub(crate) struct Problem {
    /// URI of the problem type; ends with `code`.
    #[schema(example = "/problems/validation_failed")]
    r#type: String,
    /// Summary of the problem type; constant per `code`.
    #[schema(example = "Validation failed")]
    title: String,
    #[schema(example = 400)]
    status: u16,
    /// Explanation of this occurrence, for humans. The text may change.
    #[schema(example = "1 field is invalid")]
    detail: String,
    /// Stable, machine-readable error code. Clients should branch on this field.
    #[schema(example = "validation_failed")]
    code: String,
    /// Path of the request.
    #[schema(example = "/products")]
    instance: String,
    #[schema(required = false)]
    request_id: String,
    #[schema(required = false)]
    trace_id: String,
    /// All violated rules. Present for `validation_failed` only.
    #[schema(required = false)]
    errors: Vec<ProblemField>,
    /// Id of the affected order, if there is one.
    #[schema(required = false, format = Uuid)]
    order_id: String,
    /// Statuses that the order may change to. Present for `illegal_transition` only.
    #[schema(required = false)]
    allowed: Vec<String>,
}

/// Violated validation rule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "schema only, like Problem")]
struct ProblemField {
    /// Path of the field in the request body.
    #[schema(example = "items[0].quantity")]
    field: String,
    /// Stable, machine-readable code of the rule.
    #[schema(example = "out_of_range")]
    code: String,
    message: String,
}

/// Error response shared by many operations.
struct SharedResponse {
    status: &'static str,
    name: &'static str,
    description: &'static str,
    headers: &'static [&'static str],
    applies: fn(&str, &Operation) -> bool,
}

fn always(_: &str, _: &Operation) -> bool {
    true
}

fn requires_token(_: &str, operation: &Operation) -> bool {
    operation.security.is_some()
}

fn has_body(_: &str, operation: &Operation) -> bool {
    operation.request_body.is_some()
}

fn has_path_parameter(path: &str, _: &Operation) -> bool {
    path.contains('{')
}

const SHARED_RESPONSES: [SharedResponse; 10] = [
    SharedResponse {
        status: "400",
        name: "Invalid",
        description: "`invalid_body`: malformed JSON, wrong type, unknown or repeated field; `validation_failed`: violated rules, listed \
                      in `errors`; `invalid_parameter`: invalid path, query or header value; `invalid_cursor`: not a cursor of this query",
        headers: &[],
        applies: always,
    },
    SharedResponse {
        status: "401",
        name: "Unauthenticated",
        description: "`unauthenticated`: missing or invalid bearer token; `token_expired`: expired token",
        headers: &["WWW-Authenticate"],
        applies: requires_token,
    },
    SharedResponse {
        status: "403",
        name: "Forbidden",
        description: "`insufficient_scope`: the token lacks a required scope",
        headers: &["WWW-Authenticate"],
        applies: requires_token,
    },
    SharedResponse {
        status: "404",
        name: "NotFound",
        description: "`not_found`: the resource does not exist or belongs to another user",
        headers: &[],
        applies: has_path_parameter,
    },
    SharedResponse {
        status: "413",
        name: "TooLarge",
        description: "`body_too_large`: body larger than 256 KiB",
        headers: &[],
        applies: has_body,
    },
    SharedResponse {
        status: "415",
        name: "NotJson",
        description: "`unsupported_media_type`: not `application/json` in UTF-8, or compressed",
        headers: &[],
        applies: has_body,
    },
    SharedResponse {
        status: "429",
        name: "RateLimited",
        description: "`rate_limited`: the client's rate limit is exceeded",
        headers: &["Retry-After", "RateLimit", "RateLimit-Policy"],
        applies: always,
    },
    SharedResponse { status: "500", name: "Internal", description: "`internal`: unexpected error", headers: &[], applies: always },
    SharedResponse {
        status: "503",
        name: "Unavailable",
        description: "`overloaded`: load shedding; `upstream_unavailable`: a service behind the gateway is unavailable",
        headers: &["Retry-After"],
        applies: always,
    },
    SharedResponse {
        status: "504",
        name: "DeadlineExceeded",
        description: "`deadline_exceeded`: the request exceeded its deadline",
        headers: &[],
        applies: always,
    },
];

/// Returns the document as JSON.
pub(crate) fn json() -> String {
    let mut spec = router::api().into_openapi();
    add_shared_parts(&mut spec);
    spec.to_json().expect("an OpenAPI document is serializable as JSON")
}

/// Adds the responses, headers and security scheme that all operations share.
fn add_shared_parts(spec: &mut Spec) {
    let components = spec.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "Scopes: `products:read`, `products:write`, `orders:read`, `orders:write`, and `orders:admin` for all actions on all orders",
    ));
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
    for shared_response in &SHARED_RESPONSES {
        components.responses.insert(shared_response.name.to_owned(), shared_response.response().into());
    }
    for (path, item) in &mut spec.paths.paths {
        for operation in operations(item) {
            for shared_response in &SHARED_RESPONSES {
                if (shared_response.applies)(path, operation) {
                    let shared = RefOr::Ref(Ref::from_response_name(shared_response.name));
                    operation.responses.responses.entry(shared_response.status.to_owned()).or_insert(shared);
                }
            }
            operation.parameters.get_or_insert_default().extend(parameters().map(RefOr::T));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

impl SharedResponse {
    fn response(&self) -> Response {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(self.description).content("application/problem+json", problem);
        let text = || HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).build();
        self.headers.iter().fold(response, |response, name| response.header(*name, text())).build()
    }
}

/// Headers accepted by every operation.
fn parameters() -> impl Iterator<Item = utoipa::openapi::path::Parameter> {
    let header = |name: &str, description: &str, schema: ObjectBuilder| {
        ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).description(Some(description)).schema(Some(schema)).build()
    };
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9-]{1,64}$"));
    let milliseconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    [
        header("X-Request-Id", "Request id for responses and logs. Generated if absent.", text),
        header("X-Request-Timeout", "Request timeout of the client, milliseconds", milliseconds),
    ]
    .into_iter()
}
