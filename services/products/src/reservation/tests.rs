use super::*;

fn line(id: u128, quantity: i64) -> Line {
    Line { product_id: Uuid::from_u128(id), quantity }
}

fn product_stock(quantity: i64, is_active: bool) -> ProductStock {
    ProductStock { name: "Lamp".into(), unit_price_minor: 5, quantity, is_active }
}

#[test]
fn lines_report_every_violation() {
    let violations = Lines::new(vec![line(1, 0), line(2, 1), line(2, MAX_LINE_QUANTITY + 1)]).unwrap_err();
    let actual: Vec<_> = violations.iter().map(|violation| (violation.field.as_str(), &*violation.code)).collect();
    let expected = [("lines[0].quantity", "out_of_range"), ("lines[2].quantity", "out_of_range"), ("lines[2].product_id", "duplicate")];
    assert_eq!(actual, expected);
    assert_eq!(Lines::new(vec![]).unwrap_err()[0].code, "required");
    assert_eq!(Lines::new((0..=100).map(|id| line(id, 1)).collect()).unwrap_err()[0].code, "out_of_range");
}

#[test]
fn lines_are_sorted_by_product() {
    assert_eq!(Lines::new(vec![line(2, 1), line(1, 3)]), Lines::new(vec![line(1, 3), line(2, 1)]));
}

#[test]
fn evaluate_names_the_first_unavailable_product() {
    let lines = Lines::new(vec![line(1, 1), line(2, 2), line(3, 1), line(4, 1)]).unwrap();
    let stock = HashMap::from([1, 2, 3].map(|id| (Uuid::from_u128(id), product_stock(1, id != 3))));
    let (state, held) = lines.evaluate(&stock);
    assert_eq!(state, State::Refused { reason: Refusal::InsufficientStock, product_id: Uuid::from_u128(2) });
    assert_eq!(held.len(), 4);
    assert_eq!((held[0].name.as_str(), held[3].name.as_str()), ("Lamp", ""));
}

#[test]
fn total_must_not_exceed_its_limit() {
    let lines = |max| Lines::new(vec![line(1, 2), line(2, 3)]).unwrap().with_max_total(max);
    let stock = |price: i64, quantity| {
        HashMap::from([1, 2].map(|id| (Uuid::from_u128(id), ProductStock { unit_price_minor: price, ..product_stock(quantity, true) })))
    };
    for max in [None, Some(25), Some(i64::MAX)] {
        assert_eq!(lines(max).evaluate(&stock(5, 3)).0, State::Held, "{max:?}");
    }
    let refused = State::Refused { reason: Refusal::PriceChanged, product_id: Uuid::from_u128(1) };
    for max in [Some(24), Some(0)] {
        assert_eq!(lines(max).evaluate(&stock(5, 3)).0, refused, "{max:?}");
    }
    assert_eq!(lines(Some(i64::MAX)).evaluate(&stock(i64::MAX, 3)).0, refused, "a total beyond 64 bits");
    let unavailable = State::Refused { reason: Refusal::InsufficientStock, product_id: Uuid::from_u128(2) };
    assert_eq!(lines(Some(0)).evaluate(&stock(5, 2)).0, unavailable, "a missing product is the first reason");
    assert_eq!(lines(Some(0)).evaluate(&stock(0, 3)).0, State::Held);
}

#[test]
fn refusals_parse_back() {
    for refusal in [Refusal::InsufficientStock, Refusal::UnknownProduct, Refusal::ProductInactive, Refusal::PriceChanged] {
        assert_eq!(Refusal::parse(refusal.as_str()), Some(refusal));
    }
}
