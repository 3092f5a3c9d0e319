//! Conversions between proto messages and the domain.

use std::time::SystemTime;

use palisade_middleware::{
    auth::{Principal, Subject},
    cursor::Cursor,
    parse,
    preconditions::{Condition, VersionPreconditions},
    rejection::{Rejection, Violation, reasons},
};
use palisade_proto::{
    page::fitting,
    preconditions::v1::{Preconditions, Versions},
    products::v1::{self as proto, FindAllRequest, FindAllResponse, ProductInput, ProductSort, ReservationLine, ReservationState},
};
use sha2::{Digest, Sha256};
use tonic::{Response, metadata::MetadataValue};

use crate::{
    product::{Change, Edit, Filter, Input, Page, Position, Product, Query, Sort, ValidatedProduct, compose},
    reservation::{Line, Lines, Reservation, State},
    store::IdempotencyKey,
};

/// `act.sub` of the gateway's tokens.
const GATEWAY: &str = "gateway";

/// Response metadata of a replayed create.
pub(super) const REPLAYED: &str = "idempotency-replayed";

/// Converts the input of a call by `actor`, the service that calls for the user.
pub(super) fn input(input: ProductInput, actor: Option<&str>) -> Input {
    let ProductInput { name, description, price_minor, quantity, category, is_active } = input;
    // A gateway sends the field always, but one of the previous release cannot send `false`.
    let is_active = is_active.unwrap_or(actor != Some(GATEWAY));
    Input { name, description, price_minor, quantity, category, is_active }
}

/// Converts the conditions of a request; `expected_version` is the older form of one.
pub(super) fn preconditions(conditions: Option<Preconditions>, expected_version: Option<i64>) -> Result<VersionPreconditions, Rejection> {
    let condition = |versions: Versions| if versions.any { Condition::Any } else { Condition::Listed(versions.versions) };
    match (conditions, expected_version) {
        (Some(Preconditions { if_match, if_none_match }), _) => {
            Ok(VersionPreconditions { if_match: if_match.map(condition), if_none_match: if_none_match.map(condition) })
        }
        (None, Some(version)) if version < 1 => Err(Rejection::new(&reasons::INVALID_PARAMETER, "expected_version must be at least 1")),
        (None, version) => Ok(version.map(VersionPreconditions::expect).unwrap_or_default()),
    }
}

pub(super) fn product(product: &Product) -> proto::Product {
    proto::Product {
        id: product.id.to_string(),
        name: product.name.clone(),
        description: product.description.clone(),
        price_minor: product.price_minor,
        quantity: product.quantity,
        category: product.category.clone(),
        is_active: product.is_active,
        version: product.version,
        created_at: Some(SystemTime::from(product.created_at).into()),
        updated_at: Some(SystemTime::from(product.updated_at).into()),
    }
}

pub(super) fn change(change: Change) -> proto::ProductChange {
    let text = |Edit { from, to }: Edit<String>| proto::TextEdit { from, to };
    proto::ProductChange {
        version: change.version,
        name: change.fields.name.map(text),
        description_changed: change.fields.description,
        price: change.fields.price_minor.map(|Edit { from, to }| proto::PriceEdit { from_minor: from, to_minor: to }),
        category: change.fields.category.map(text),
        is_active: change.fields.is_active.map(|Edit { from, to }| proto::FlagEdit { from, to }),
        actor: change.actor.as_ref().map(Subject::as_str).unwrap_or_default().to_owned(),
        at: Some(SystemTime::from(change.at).into()),
    }
}

pub(super) fn created(created: &Product, replayed: bool) -> Response<proto::Product> {
    let mut response = Response::new(product(created));
    if replayed {
        response.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    }
    response
}

/// Returns the key with the fingerprint of the request. The fingerprint covers the meaning (trimmed
/// text), not the spelling.
pub(super) fn idempotency_key(principal: &Principal, key: String, draft: &ValidatedProduct) -> Result<Option<IdempotencyKey>, Rejection> {
    let Some(key) = parse::idempotency_key(key)? else { return Ok(None) };
    let mut digest = Sha256::new();
    for text in [&draft.name, &draft.description, &draft.category] {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    digest.update(draft.price_minor.to_be_bytes());
    digest.update(draft.quantity.to_be_bytes());
    digest.update([u8::from(draft.is_active)]);
    Ok(Some(IdempotencyKey { subject: principal.subject.clone(), key, fingerprint: digest.finalize().into() }))
}

pub(super) fn query(cursor: &Cursor, request: FindAllRequest) -> Result<Query, Rejection> {
    let sort = sort(request.sort)?;
    let filter = Filter {
        category: request.category.as_deref().map(compose),
        is_active: request.is_active,
        text: request.q,
        min_price_minor: request.min_price_minor,
        max_price_minor: request.max_price_minor,
    };
    let after = if request.cursor.is_empty() {
        None
    } else {
        let invalid = || Rejection::new(&reasons::INVALID_CURSOR, "the cursor belongs to another query");
        let bytes = cursor.open(&filter.fingerprint(sort), &request.cursor).map_err(|_| invalid())?;
        Some(Position::from_bytes(sort, &bytes).ok_or_else(invalid)?)
    };
    Query::new(filter, sort, request.limit, after).map_err(|violations| {
        let detail = violations.iter().map(|violation| format!("{} {}", violation.field, violation.message)).collect::<Vec<_>>().join("; ");
        Rejection::new(&reasons::INVALID_PARAMETER, detail)
    })
}

/// Parses a sort order. A number that is none is an error.
fn sort(number: i32) -> Result<Sort, Rejection> {
    let sort = ProductSort::try_from(number).map_err(|_| Rejection::new(&reasons::INVALID_PARAMETER, "sort must be a sort order"))?;
    Ok(match sort {
        ProductSort::Unspecified | ProductSort::Newest => Sort::Newest,
        ProductSort::Oldest => Sort::Oldest,
        ProductSort::PriceAsc => Sort::PriceAsc,
        ProductSort::PriceDesc => Sort::PriceDesc,
        ProductSort::NameAsc => Sort::NameAsc,
        ProductSort::NameDesc => Sort::NameDesc,
    })
}

/// Converts a page. Products beyond the maximum size of a page move to the next one.
pub(super) fn page(cursor: &Cursor, query: &Query, page: Page) -> FindAllResponse {
    let mut items: Vec<_> = page.items.iter().map(product).collect();
    let page = query.truncate(page, fitting(&items));
    items.truncate(page.items.len());
    let next = page.next.map(|next| cursor.seal(&query.filter().fingerprint(query.sort()), &next.to_bytes()));
    FindAllResponse { items, next_cursor: next.unwrap_or_default() }
}

/// Validates the lines of a reservation and the limit of their total. `earlier` are violations that
/// were found before.
pub(super) fn reservation_lines(
    lines: &[ReservationLine],
    max_total_minor: Option<i64>,
    earlier: Option<Violation>,
) -> Result<Lines, Rejection> {
    let line = |line: &ReservationLine| Ok(Line { product_id: parse::parse_uuid(&line.product_id)?, quantity: line.quantity });
    let lines = Lines::new(lines.iter().map(line).collect::<Result<_, Rejection>>()?);
    let is_negative = max_total_minor.is_some_and(|max| max < 0);
    let negative = is_negative.then(|| Violation::new("max_total_minor", "out_of_range", "must not be negative"));
    match lines {
        Ok(lines) if earlier.is_none() && negative.is_none() => Ok(lines.with_max_total(max_total_minor)),
        checked => Err(Rejection::invalid(earlier.into_iter().chain(checked.err().into_iter().flatten()).chain(negative).collect())),
    }
}

pub(super) fn reservation(reservation: &Reservation) -> proto::Reservation {
    let state = match reservation.state {
        State::Held => ReservationState::Held,
        State::Confirmed => ReservationState::Confirmed,
        State::Fulfilled => ReservationState::Fulfilled,
        State::Released => ReservationState::Released,
        State::Expired => ReservationState::Expired,
        State::Refused { .. } => ReservationState::Refused,
    };
    let lines = reservation.lines.iter().map(|line| ReservationLine {
        product_id: line.product_id.to_string(),
        quantity: line.quantity,
        name: line.name.clone(),
        unit_price_minor: line.unit_price_minor,
    });
    proto::Reservation {
        reservation_id: reservation.id.to_string(),
        state: state.into(),
        lines: lines.collect(),
        expires_at: Some(SystemTime::from(reservation.expires_at).into()),
    }
}
