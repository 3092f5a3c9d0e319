//! Path parameter `{id}`.

use axum::{
    RequestPartsExt,
    extract::{FromRequestParts, Path},
};
use http::request::Parts;
use palisade_middleware::rejection::{Rejection, reasons};
use uuid::Uuid;

/// Length of the hyphenated form (8-4-4-4-12), the only accepted one. `Uuid` also parses other
/// forms.
const HYPHENATED: usize = 36;

/// The `{id}` of a route, a UUID.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Id(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let text = parts.extract::<Path<String>>().await.ok().map(|Path(text)| text).filter(|text| text.len() == HYPHENATED);
        let id = text.and_then(|text| Uuid::try_parse(&text).ok());
        id.map(Self).ok_or_else(|| {
            Rejection::new(&reasons::INVALID_PARAMETER, "the id must be a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057")
        })
    }
}
