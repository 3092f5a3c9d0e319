use proptest::prelude::*;
use time::macros::datetime;

use super::*;

fn input() -> Input {
    Input {
        name: "  Lamp ".into(),
        description: "Warm.\n\tTwo lines.".into(),
        price_minor: 1999,
        quantity: 3,
        category: " home ".into(),
        is_active: true,
    }
}

fn violations(input: Input) -> Vec<(String, String)> {
    ValidatedProduct::new(input).unwrap_err().into_iter().map(|violation| (violation.field, violation.code.into_owned())).collect()
}

#[test]
fn validation_trims_name_and_category_only() {
    let draft = ValidatedProduct::new(input()).unwrap();
    assert_eq!((&*draft.name, &*draft.category, &*draft.description), ("Lamp", "home", "Warm.\n\tTwo lines."));
}

#[test]
fn validation_reports_every_violation() {
    let all = Input {
        name: " ".into(),
        description: "x".repeat(MAX_DESCRIPTION + 1),
        price_minor: -1,
        quantity: MAX_QUANTITY + 1,
        category: "a\0b".into(),
        is_active: true,
    };
    let expected = [
        ("name", "required"),
        ("description", "too_long"),
        ("price", "out_of_range"),
        ("quantity", "out_of_range"),
        ("category", "invalid_characters"),
    ];
    assert_eq!(violations(all), expected.map(|(field, code)| (field.to_owned(), code.to_owned())));
}

#[test]
fn length_limits_are_inclusive_and_count_characters() {
    let at_limit = Input {
        name: "é".repeat(MAX_NAME),
        description: "🦀".repeat(MAX_DESCRIPTION),
        price_minor: MAX_PRICE_MINOR,
        quantity: MAX_QUANTITY,
        category: "x".repeat(MAX_CATEGORY),
        is_active: false,
    };
    ValidatedProduct::new(at_limit).unwrap();
    ValidatedProduct::new(Input { price_minor: 0, quantity: 0, description: String::new(), ..input() }).unwrap();
    assert_eq!(violations(Input { name: "x".repeat(MAX_NAME + 1), ..input() }), [("name".into(), "too_long".into())]);
}

#[test]
fn control_and_bidi_characters_are_rejected() {
    for name in ["a\0b", "a\nb", "a\u{202e}b", "a\u{2067}b", "a\u{7f}b"] {
        assert_eq!(violations(Input { name: name.into(), ..input() }), [("name".into(), "invalid_characters".into())], "{name:?}");
    }
    assert_eq!(violations(Input { description: "a\0b".into(), ..input() }), [("description".into(), "invalid_characters".into())]);
}

#[test]
fn query_reports_every_violation() {
    let filter = Filter {
        category: Some(String::new()),
        is_active: None,
        text: Some("a\0".into()),
        min_price_minor: Some(-1),
        max_price_minor: Some(-1),
    };
    let violations = Query::new(filter, Sort::Newest, 101, None).unwrap_err();
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["category", "q", "minPrice", "maxPrice", "limit"]);
    assert_eq!(Query::new(Filter::default(), Sort::Newest, 0, None).unwrap().limit(), 20);
}

#[test]
fn fingerprints_of_filters_are_distinct() {
    let category = |text: &str| Filter { category: Some(text.into()), ..Filter::default() };
    let text = |text: &str| Filter { text: Some(text.into()), ..Filter::default() };
    let all = [
        Filter::default().fingerprint(Sort::Newest),
        Filter::default().fingerprint(Sort::Oldest),
        category("true").fingerprint(Sort::Newest),
        text("true").fingerprint(Sort::Newest),
        Filter { is_active: Some(true), ..Filter::default() }.fingerprint(Sort::Newest),
        Filter { min_price_minor: Some(1), ..Filter::default() }.fingerprint(Sort::Newest),
        Filter { max_price_minor: Some(1), ..Filter::default() }.fingerprint(Sort::Newest),
    ];
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

proptest! {
    #[test]
    fn position_round_trips_through_bytes(id in any::<u128>(), name in ".{0,40}", price in any::<i64>(), millis in 0_i64..4_000_000_000_000) {
        let at = OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(millis);
        let id = Uuid::from_u128(id);
        for (sort, key) in [(Sort::Newest, SortKey::CreatedAt(at)), (Sort::PriceAsc, SortKey::PriceMinor(price)), (Sort::NameAsc, SortKey::Name(name))] {
            let position = Position { key, id };
            prop_assert_eq!(Position::from_bytes(sort, &position.to_bytes()), Some(position));
        }
    }

    #[test]
    fn position_decodes_only_canonical_bytes(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        for sort in [Sort::Newest, Sort::PriceDesc, Sort::NameAsc] {
            if let Some(position) = Position::from_bytes(sort, &bytes) {
                prop_assert_eq!(position.to_bytes(), bytes.clone());
            }
        }
    }

    #[test]
    fn validation_never_panics(name in any::<String>(), description in any::<String>()) {
        let _ = ValidatedProduct::new(Input { name, description, ..input() });
    }
}

#[test]
fn page_position_is_its_last_product() {
    let query = Query::new(Filter::default(), Sort::PriceAsc, 1, None).unwrap();
    let product = ValidatedProduct::new(input()).unwrap().into_product(Uuid::nil(), datetime!(2026-01-01 0:00 UTC));
    let page = query.page(vec![Some(product.clone()), Some(product.clone())]);
    assert_eq!(page.next, Some(Position { key: SortKey::PriceMinor(1999), id: Uuid::nil() }));
    assert_eq!(query.page(vec![Some(product)]).next, None);
}
