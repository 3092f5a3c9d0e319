//! Names of gRPC status codes.

use anyhow::Context;
use palisade_middleware::grpc_status;
use tonic::Code;

pub(crate) fn parse(name: &str) -> anyhow::Result<Code> {
    let known = (0..=16).map(Code::from).find(|code| grpc_status::name(*code) == name);
    known.with_context(|| format!("{name} is no gRPC status"))
}
