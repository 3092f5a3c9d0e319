//! Patterns of the texts that the API accepts (ECMA-262), so that the document refuses what the
//! server refuses.

use utoipa::openapi::{
    Components, RefOr,
    path::Operation,
    schema::{Schema, SchemaType, Type},
};

/// Hyphenated UUID.
const UUID: &str = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

/// Characters that no single-line label may have: control characters and text-direction controls.
macro_rules! hidden {
    () => {
        r"\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    };
}

/// White space that is trimmed from a label.
macro_rules! space {
    () => {
        r"\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    };
}

/// Label of 1 to `$more` + 2 characters after trimming.
macro_rules! trimmed {
    ($more:literal) => {
        concat!(
            "^[",
            space!(),
            "]*[^",
            space!(),
            hidden!(),
            "](?:[^",
            hidden!(),
            "]{0,",
            $more,
            "}[^",
            space!(),
            hidden!(),
            "])?[",
            space!(),
            "]*$"
        )
    };
}

/// Name or reason.
const NAME: &str = trimmed!("198");
const CATEGORY: &str = trimmed!("98");
/// Label that is compared as it is.
const LABEL: &str = concat!("^[^", hidden!(), "]*$");
/// Text of any number of lines.
const TEXT: &str = r"^[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]*$";
/// Text without control characters.
const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";
/// Date and time (RFC 3339, section 5.6).
const RFC_3339: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})$";
/// Sequence number of an event.
const SEQUENCE: &str = "^[0-9]{0,18}$";

/// List of entity tags, or `*` (RFC 9110, section 13.1).
pub(super) const ENTITY_TAGS: &str = concat!(
    r"^(?:[ \t]*\*[ \t]*|[ \t,]*(?:",
    r#"(?:W/)?"[!#-~\u0080-\u00ff]*""#,
    r"[ \t]*(?:,[ \t,]*",
    r#"(?:W/)?"[!#-~\u0080-\u00ff]*""#,
    r"[ \t]*)*(?:,[ \t,]*)?)?)$"
);

/// Bare key, or a quoted string with escapes.
pub(super) const IDEMPOTENCY_KEY: &str = r#"^(?:[!#-~][!-~]{0,254}|"(?:[!#-\[\]-~]|\\["\\]){1,255}")$"#;

/// Parameters with a pattern, by name.
const PARAMETERS: [(&str, &str); 8] = [
    ("id", UUID),
    ("category", LABEL),
    ("q", LABEL),
    ("userId", NO_CONTROL),
    ("productId", UUID),
    ("createdFrom", RFC_3339),
    ("createdTo", RFC_3339),
    ("Last-Event-ID", SEQUENCE),
];

/// Properties with a pattern, by schema.
const PROPERTIES: [(&str, &str, &str); 9] = [
    ("ProductInput", "name", NAME),
    ("ProductInput", "category", CATEGORY),
    ("ProductInput", "description", TEXT),
    ("ProductPatch", "name", NAME),
    ("ProductPatch", "category", CATEGORY),
    ("ProductPatch", "description", TEXT),
    ("NewStockAdjustment", "reason", NAME),
    ("NewOrder", "userId", NO_CONTROL),
    ("NewOrderItem", "productId", UUID),
];

/// Adds the patterns of an operation's parameters.
pub(super) fn add_to_parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema else { continue };
        // An optional parameter is absent; `null` would be text like any other.
        if let SchemaType::Array(types) = &object.schema_type
            && let [only] = types.iter().filter(|kind| **kind != Type::Null).collect::<Vec<_>>()[..]
        {
            object.schema_type = SchemaType::Type(only.clone());
        }
        if let Some((_, pattern)) = PARAMETERS.iter().find(|(name, _)| *name == parameter.name) {
            object.pattern = Some((*pattern).to_owned());
        }
    }
}

/// Adds the patterns of the request bodies.
pub(super) fn add_to_schemas(components: &mut Components) {
    for (schema, property, pattern) in PROPERTIES {
        if let Some(RefOr::T(Schema::Object(schema))) = components.schemas.get_mut(schema)
            && let Some(RefOr::T(Schema::Object(property))) = schema.properties.get_mut(property)
        {
            property.pattern = Some(pattern.to_owned());
        }
    }
}
