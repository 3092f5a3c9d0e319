//! Names of gRPC status codes.

use anyhow::Context;
use tonic::Code;

const NAMES: [(&str, Code); 17] = [
    ("OK", Code::Ok),
    ("CANCELLED", Code::Cancelled),
    ("UNKNOWN", Code::Unknown),
    ("INVALID_ARGUMENT", Code::InvalidArgument),
    ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
    ("NOT_FOUND", Code::NotFound),
    ("ALREADY_EXISTS", Code::AlreadyExists),
    ("PERMISSION_DENIED", Code::PermissionDenied),
    ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
    ("FAILED_PRECONDITION", Code::FailedPrecondition),
    ("ABORTED", Code::Aborted),
    ("OUT_OF_RANGE", Code::OutOfRange),
    ("UNIMPLEMENTED", Code::Unimplemented),
    ("INTERNAL", Code::Internal),
    ("UNAVAILABLE", Code::Unavailable),
    ("DATA_LOSS", Code::DataLoss),
    ("UNAUTHENTICATED", Code::Unauthenticated),
];

pub(crate) fn name(code: Code) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == code).map_or("UNKNOWN", |(name, _)| name)
}

pub(crate) fn parse(name: &str) -> anyhow::Result<Code> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, code)| *code).with_context(|| format!("{name} is no gRPC status"))
}
