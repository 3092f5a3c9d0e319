//! `OpenAPI` document: generated from the handlers, completed with shared responses and headers.

use utoipa::{
    OpenApi,
    openapi::{
        Components, ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi as Spec, Ref, RefOr, Response, ResponseBuilder,
        path::{Operation, PathItem},
        schema::Type,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

mod parameters;
mod patterns;

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

const SHARED_RESPONSES: [SharedResponse; 11] = [
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
        status: "412",
        name: "VersionMismatch",
        description: "`version_mismatch`: a condition of `If-Match` or `If-None-Match` is false",
        headers: &[],
        applies: requires_token,
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
        description: "`unsupported_media_type`: not JSON in UTF-8 (`application/json`, for `PATCH` also `application/merge-patch+json`), or compressed",
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
    patterns::add_to_schemas(components);
    for (path, item) in &mut spec.paths.paths {
        for (verb, operation) in operations(item) {
            patterns::add_to_parameters(operation);
            if verb == "get" && operation.security.is_some() {
                let not_modified = ResponseBuilder::new().description("`If-None-Match`: the client's copy is current").build();
                operation.responses.responses.entry("304".to_owned()).or_insert(not_modified.into());
            }
            for shared in &SHARED_RESPONSES {
                if (shared.applies)(path, operation) {
                    let response = RefOr::Ref(Ref::from_response_name(shared.name));
                    operation.responses.responses.entry(shared.status.to_owned()).or_insert(response);
                }
            }
            let shared = parameters::of(verb, operation);
            operation.parameters.get_or_insert_default().extend(shared.into_iter().map(RefOr::T));
        }
    }
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let operations = [
        ("get", &mut item.get),
        ("put", &mut item.put),
        ("patch", &mut item.patch),
        ("post", &mut item.post),
        ("delete", &mut item.delete),
    ];
    operations.into_iter().filter_map(|(verb, operation)| Some((verb, operation.as_mut()?)))
}

impl SharedResponse {
    fn response(&self) -> Response {
        let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description(self.description).content("application/problem+json", problem);
        let text = || HeaderBuilder::new().schema(Some(ObjectBuilder::new().schema_type(Type::String))).build();
        self.headers.iter().fold(response, |response, name| response.header(*name, text())).build()
    }
}
