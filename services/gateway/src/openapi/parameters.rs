//! Header parameters that many operations share.

use utoipa::openapi::{
    ObjectBuilder,
    path::{Operation, Parameter, ParameterBuilder, ParameterIn},
    schema::{Schema, Type},
};

use super::patterns::{ENTITY_TAGS, IDEMPOTENCY_KEY};

/// Returns the shared parameters of the operation with this verb.
pub(super) fn of(verb: &str, operation: &Operation) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    if operation.security.is_some() {
        let reads = verb == "get";
        parameters.push(tags("If-Match", "Entity tags, one of which the target must have, or `*`. Otherwise 412 `version_mismatch`."));
        parameters.push(tags(
            "If-None-Match",
            if reads {
                "Entity tags of the client's copies, or `*`. 304 if the target has one of them."
            } else {
                "Entity tags, none of which the target may have, or `*`. Otherwise 412 `version_mismatch`."
            },
        ));
    }
    if verb == "post" {
        let key = text().pattern(Some(IDEMPOTENCY_KEY)).examples([serde_json::json!("4be1c5c4-6f7c")]);
        parameters.push(header(
            "Idempotency-Key",
            "Client-generated key of this request: 1 to 255 visible ASCII characters, bare or as a quoted string (RFC 8941)",
            key,
        ));
    }
    parameters.push(header(
        "X-Request-Id",
        "Request id for responses and logs: 1 to 64 letters, digits or hyphens. Generated if absent or not valid.",
        text(),
    ));
    let milliseconds = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(usize::MAX));
    parameters.push(header(
        "X-Request-Timeout",
        "Request timeout of the client, milliseconds. The server's own timeout is the maximum.",
        milliseconds,
    ));
    parameters
}

fn tags(name: &str, description: &str) -> Parameter {
    header(name, description, text().pattern(Some(ENTITY_TAGS)).examples([serde_json::json!("\"3\"")]))
}

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn header(name: &str, description: &str, schema: ObjectBuilder) -> Parameter {
    let schema = Schema::Object(schema.build());
    ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).description(Some(description)).schema(Some(schema)).build()
}
