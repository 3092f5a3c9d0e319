//! The `OpenAPI` document: what the handlers say of themselves, and what is true of all of them.

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

/// The frame of the document; the paths come from the router.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Palisade",
        description = "Products, and orders of them.\n\nEvery answer has `x-request-id` (the caller's own if it is 1 to 64 letters, digits or hyphens) \
            and `x-trace-id`. Money is a JSON number with its exact value. A refusal is a problem (RFC 9457) whose `code` is stable. \
            5xx and 429 answers are never kept under an `Idempotency-Key`."
    ),
    components(schemas(Problem)),
    tags((name = "products"), (name = "orders"), (name = "documentation"))
)]
pub(crate) struct Document;

/// Why a request was refused (RFC 9457).
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what the respond layer writes; nobody builds one")]
pub(crate) struct Problem {
    /// Identifies the code below as a URI.
    #[schema(example = "/problems/validation_failed")]
    r#type: String,
    /// One line, the same for every occurrence.
    #[schema(example = "A rule is broken")]
    title: String,
    #[schema(example = 400)]
    status: u16,
    /// What was wrong this time.
    #[schema(example = "1 field is invalid")]
    detail: String,
    /// Stable; decide on this.
    #[schema(example = "validation_failed")]
    code: String,
    /// The path that was asked for.
    #[schema(example = "/products")]
    instance: String,
    #[schema(required = false)]
    request_id: String,
    #[schema(required = false)]
    trace_id: String,
    /// All broken rules, for `validation_failed` only.
    #[schema(required = false)]
    errors: Vec<ProblemField>,
    /// The order that the problem is about, when there is one.
    #[schema(required = false, format = Uuid)]
    order_id: String,
    /// The statuses that the order can get, for `illegal_transition` only.
    #[schema(required = false)]
    allowed: Vec<String>,
}

/// A broken rule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "as Problem")]
struct ProblemField {
    /// As it was sent.
    #[schema(example = "items[0].quantity")]
    field: String,
    /// Stable slug of the rule.
    #[schema(example = "out_of_range")]
    code: String,
    message: String,
}

/// A refusal that many operations share.
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
        description: "`invalid_body`: malformed JSON, a wrong type, an unknown or repeated field; `validation_failed`: broken rules, all of \
                      them in `errors`; `invalid_parameter`: a path, query or header value; `invalid_cursor`: not a cursor of this query",
        headers: &[],
        applies: always,
    },
    SharedResponse {
        status: "401",
        name: "Unauthenticated",
        description: "`unauthenticated`: no token or none that is valid; `token_expired`",
        headers: &["WWW-Authenticate"],
        applies: requires_token,
    },
    SharedResponse { status: "403", name: "Forbidden", description: "`insufficient_scope`", headers: &["WWW-Authenticate"], applies: requires_token },
    SharedResponse { status: "404", name: "NotFound", description: "`not_found`: no such thing, or not yours", headers: &[], applies: has_path_parameter },
    SharedResponse { status: "413", name: "TooLarge", description: "`body_too_large`: more than 256 KiB", headers: &[], applies: has_body },
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
        description: "`rate_limited`: over the caller's rate",
        headers: &["Retry-After", "RateLimit", "RateLimit-Policy"],
        applies: always,
    },
    SharedResponse { status: "500", name: "Internal", description: "`internal`: an unexpected error", headers: &[], applies: always },
    SharedResponse {
        status: "503",
        name: "Unavailable",
        description: "`overloaded`: no room for more work; `upstream_unavailable`: a service behind this one does not answer",
        headers: &["Retry-After"],
        applies: always,
    },
    SharedResponse {
        status: "504",
        name: "DeadlineExceeded",
        description: "`deadline_exceeded`: the request took longer than allowed",
        headers: &[],
        applies: always,
    },
];

/// The document as JSON.
pub(crate) fn json() -> String {
    let mut spec = router::api().into_openapi();
    add_shared_parts(&mut spec);
    spec.to_json().expect("a document is maps and text, which JSON can write")
}

/// Adds what no handler says because it holds for all.
fn add_shared_parts(spec: &mut Spec) {
    let components = spec.components.get_or_insert_with(Components::new);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "Scopes: `products:read`, `products:write`, `orders:read`, `orders:write`, and `orders:admin` for all actions on everyone's orders",
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

/// Headers that every request may have.
fn parameters() -> impl Iterator<Item = utoipa::openapi::path::Parameter> {
    let header = |name: &str, description: &str, schema: ObjectBuilder| {
        ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).description(Some(description)).schema(Some(schema)).build()
    };
    let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9-]{1,64}$"));
    let milliseconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1));
    [
        header("X-Request-Id", "Names the request in answers and logs; a new id otherwise", text),
        header("X-Request-Timeout", "How long the caller will wait, in milliseconds", milliseconds),
    ]
    .into_iter()
}
