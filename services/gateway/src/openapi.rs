//! `OpenAPI` document: generated from the handlers, completed with shared responses and headers.

use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi as Spec, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, ParameterBuilder, ParameterIn, PathItem},
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{docs, problem::Problem};

/// Document without the paths that the router adds.
#[derive(OpenApi)]
#[openapi(
    paths(docs::openapi),
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

/// Completes the document with the parts that its operations share, and returns it as JSON.
pub(crate) fn to_json(mut spec: Spec) -> String {
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
    for shared in &SHARED_RESPONSES {
        components.responses.insert(shared.name.to_owned(), shared.response().into());
    }
    for (path, item) in &mut spec.paths.paths {
        for operation in operations(item) {
            for shared in &SHARED_RESPONSES {
                if (shared.applies)(path, operation) {
                    let response = RefOr::Ref(Ref::from_response_name(shared.name));
                    operation.responses.responses.entry(shared.status.to_owned()).or_insert(response);
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
