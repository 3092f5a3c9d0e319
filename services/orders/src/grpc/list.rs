//! Lists of orders: filters, the cursor that is bound to them, and pages.

use palisade_middleware::{
    auth::{Principal, Subject},
    cursor::Cursor,
    parse,
    rejection::{Rejection, reasons},
};
use palisade_proto::{
    orders::v1::{FindAllRequest, FindAllResponse},
    page::fitting,
};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    caller::{self, ADMIN},
    convert,
};
use crate::{
    order::Status,
    store::{List, Page, Position},
};

const DEFAULT_LIMIT: u32 = 20;
const MAX_LIMIT: u32 = 100;
const NANOS_PER_MS: u32 = 1_000_000;

/// Validated filters of a list.
pub(super) struct Filters {
    /// Owner filter. `None`: the orders of all users.
    user_id: Option<Subject>,
    status: Option<Status>,
    product_id: Option<Uuid>,
    created_from: Option<OffsetDateTime>,
    created_to: Option<OffsetDateTime>,
}

impl Filters {
    /// Parses the filters of `request`, which `principal` sent.
    pub(super) fn parse(principal: &Principal, request: &FindAllRequest) -> Result<Self, Rejection> {
        let filters = Self {
            user_id: user_id(principal, request)?,
            status: convert::status(request.status)?,
            product_id: if request.product_id.is_empty() { None } else { Some(product_id(&request.product_id)?) },
            created_from: bound(request.created_from, "createdFrom")?,
            created_to: bound(request.created_to, "createdTo")?,
        };
        match (filters.created_from, filters.created_to) {
            (Some(from), Some(to)) if from > to => Err(invalid("createdFrom must not be after createdTo")),
            _ => Ok(filters),
        }
    }

    /// Returns the query for the page that `request` asks for.
    pub(super) fn list(&self, cursor: &Cursor, request: &FindAllRequest, with_removed: bool) -> Result<List, Rejection> {
        let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit };
        if limit > MAX_LIMIT {
            return Err(invalid("limit must be between 1 and 100"));
        }
        let after = if request.cursor.is_empty() {
            None
        } else {
            let invalid = || Rejection::new(&reasons::INVALID_CURSOR, "invalid cursor for this query");
            let bytes = cursor.open(&self.cursor_scope(), &request.cursor).map_err(|_| invalid())?;
            Some(decode_position(&bytes).ok_or_else(invalid)?)
        };
        let &Self { ref user_id, status, product_id, created_from, created_to } = self;
        Ok(List { user_id: user_id.clone(), status, product_id, created_from, created_to, with_removed, limit, after })
    }

    /// Converts a page. Orders beyond the maximum size of a page move to the next one.
    pub(super) fn page(&self, cursor: &Cursor, page: Page) -> FindAllResponse {
        let mut items: Vec<_> = page.orders.iter().map(convert::order).collect();
        let page = page.truncated(fitting(&items));
        items.truncate(page.orders.len());
        let next = page.next.map(|next| {
            let mut bytes = next.id.as_uuid().as_bytes().to_vec();
            bytes.extend(next.created_at.unix_timestamp_nanos().to_be_bytes());
            cursor.seal(&self.cursor_scope(), &bytes)
        });
        FindAllResponse { items, next_cursor: next.unwrap_or_default() }
    }

    /// Binds a page cursor to its query: its position has no meaning in another list. Without the
    /// newer filters the scope is that of the previous release. A subject has no control character,
    /// so each further filter begins with one.
    fn cursor_scope(&self) -> Vec<u8> {
        let status = self.status.map_or(0, |status| i32::from(convert::proto_status(status)));
        let mut scope = [b"orders", &status.to_be_bytes()[..]].concat();
        match &self.user_id {
            Some(user_id) => scope.extend(user_id.as_str().as_bytes()),
            None => scope.extend(b"\0*"),
        }
        if let Some(product_id) = self.product_id {
            scope.extend(b"\0p");
            scope.extend(product_id.as_bytes());
        }
        for (tag, bound) in [(b"\0f", self.created_from), (b"\0t", self.created_to)] {
            if let Some(bound) = bound {
                scope.extend(tag);
                scope.extend(bound.unix_timestamp_nanos().to_be_bytes());
            }
        }
        scope
    }
}

fn user_id(principal: &Principal, request: &FindAllRequest) -> Result<Option<Subject>, Rejection> {
    if !request.all_users {
        let user_id = caller::effective_user_id(principal, &request.user_id)?;
        return user_id.map(Some).map_err(|violation| invalid(format!("userId {}", violation.message)));
    }
    if !principal.has_scope(ADMIN) {
        return Err(caller::insufficient_scope("listing the orders of all users requires the scope orders:admin"));
    }
    if request.user_id.is_empty() { Ok(None) } else { Err(invalid("a user and all users exclude each other")) }
}

fn product_id(text: &str) -> Result<Uuid, Rejection> {
    parse::parse_uuid(text).map_err(|_| invalid("productId must be a UUID"))
}

/// Parses a bound of the time of acceptance. Rounds it up to whole milliseconds, which is how the
/// API shows the time of an order.
fn bound(timestamp: Option<prost_types::Timestamp>, name: &str) -> Result<Option<OffsetDateTime>, Rejection> {
    let Some(prost_types::Timestamp { seconds, nanos }) = timestamp else { return Ok(None) };
    let parse = || {
        let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000 * NANOS_PER_MS)?;
        let second = OffsetDateTime::from_unix_timestamp(seconds).ok().filter(|second| second.year() >= 1)?;
        second.checked_add(Duration::milliseconds(nanos.div_ceil(NANOS_PER_MS).into()))
    };
    parse().map(Some).ok_or_else(|| invalid(format!("{name} must be a time of the years 1 to 9999")))
}

fn decode_position(bytes: &[u8]) -> Option<Position> {
    let (id, nanos) = bytes.split_first_chunk::<16>()?;
    let nanos = i128::from_be_bytes(nanos.try_into().ok()?);
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some(Position { created_at, id: Uuid::from_bytes(*id).into() })
}

fn invalid(detail: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::new(&reasons::INVALID_PARAMETER, detail)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn bound_is_rounded_up_to_milliseconds() {
        let at = |nanos| bound(Some(prost_types::Timestamp { seconds: 0, nanos }), "createdFrom").unwrap().unwrap();
        assert_eq!(at(0), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(at(1), datetime!(1970-01-01 0:00:00.001 UTC));
        assert_eq!(at(1_000_000), datetime!(1970-01-01 0:00:00.001 UTC));
        assert_eq!(at(999_999_999), datetime!(1970-01-01 0:00:01 UTC));
    }

    #[test]
    fn bound_outside_of_the_calendar_is_rejected() {
        for (seconds, nanos) in
            [(0, -1), (0, 1_000_000_000), (i64::MAX, 0), (i64::MIN, 0), (-62_135_596_801, 0), (253_402_300_799, 999_999_999)]
        {
            let rejection = bound(Some(prost_types::Timestamp { seconds, nanos }), "createdTo").unwrap_err();
            assert_eq!(rejection.reason(), &reasons::INVALID_PARAMETER, "{seconds} {nanos}");
        }
        assert_eq!(bound(None, "createdTo").unwrap(), None);
    }

    #[test]
    fn cursor_scope_depends_on_every_filter() {
        let none = || Filters { user_id: None, status: None, product_id: None, created_from: None, created_to: None };
        let (id, at) = (Some(Uuid::nil()), Some(OffsetDateTime::UNIX_EPOCH));
        let all = [
            none(),
            Filters { user_id: Some("*".into()), ..none() },
            Filters { user_id: Some("alice".into()), ..none() },
            Filters { status: Some(Status::Failed), ..none() },
            Filters { product_id: id, ..none() },
            Filters { product_id: Some(Uuid::max()), ..none() },
            Filters { created_from: at, ..none() },
            Filters { created_to: at, ..none() },
            Filters { created_from: at, created_to: at, ..none() },
            Filters { product_id: id, created_to: at, ..none() },
        ];
        let scopes: std::collections::BTreeSet<_> = all.iter().map(Filters::cursor_scope).collect();
        assert_eq!(scopes.len(), all.len());
        let previous = [b"orders", &[0, 0, 0, 4][..], b"alice"].concat();
        assert_eq!(Filters { user_id: Some("alice".into()), status: Some(Status::Failed), ..none() }.cursor_scope(), previous);
    }
}
