use std::time::Duration;

use super::*;

fn foldable(sequence: i64, kind: Kind, delta: i64) -> Foldable {
    let age = Duration::from_secs(sequence.unsigned_abs());
    Foldable { sequence, kind, delta, created_at: OffsetDateTime::UNIX_EPOCH + age }
}

fn entry(sequence: i64, kind: Kind) -> Entry {
    let NewEntry { id, product_id, reason, actor, order_id, created_at, .. } =
        NewEntry::new(Uuid::nil(), kind, OffsetDateTime::UNIX_EPOCH).by("alice".into());
    Entry { id, product_id, sequence, kind, delta: 1, reason, quantity_after: 1, actor, order_id, created_at }
}

#[test]
fn adjustment_reports_all_violations() {
    let fields = |delta, reason: &str| match Adjustment::new(Uuid::nil(), delta, reason) {
        Ok(_) => Vec::new(),
        Err(violations) => violations.into_iter().map(|violation| format!("{}: {}", violation.field, violation.code)).collect(),
    };
    assert_eq!(fields(0, " "), ["delta: out_of_range", "reason: required"]);
    assert_eq!(fields(MAX_DELTA + 1, "a\nb"), ["delta: out_of_range", "reason: invalid_characters"]);
    assert_eq!(fields(-MAX_DELTA - 1, &"x".repeat(MAX_REASON + 1)), ["delta: out_of_range", "reason: too_long"]);
    assert_eq!(fields(i64::MIN, "x"), ["delta: out_of_range"]);
    for delta in [-MAX_DELTA, -1, 1, MAX_DELTA] {
        assert_eq!(fields(delta, &format!(" {} ", "x".repeat(MAX_REASON))), Vec::<String>::new());
    }
}

#[test]
fn adjustment_keeps_the_quantity_within_its_bounds() {
    let decide = |delta, quantity| Adjustment::new(Uuid::nil(), delta, "count").unwrap().decide(quantity);
    assert_eq!((decide(-3, 3), decide(-3, 2)), (Decision::Apply, Decision::InsufficientStock));
    assert_eq!((decide(1, MAX_QUANTITY - 1), decide(1, MAX_QUANTITY)), (Decision::Apply, Decision::AboveMaximum));
    assert_eq!(decide(-1, MAX_QUANTITY + 5), Decision::Apply, "returned units may exceed the maximum");
}

#[test]
fn page_ends_with_the_last_opening() {
    let query = LedgerQuery::new(Uuid::nil(), 2, None).unwrap();
    let row = |entry: Entry| (entry.sequence, Some(entry));
    let sequences = |page: &LedgerPage| page.items.iter().map(|entry| entry.sequence).collect::<Vec<_>>();
    let page = query.page(vec![row(entry(9, Kind::Set)), row(entry(7, Kind::Set)), (6, None)]);
    assert_eq!((sequences(&page), page.next), (vec![9, 7], Some(7)));
    let page = query.page(vec![(9, None), (7, None), row(entry(6, Kind::Set))]);
    assert_eq!((sequences(&page), page.next), (vec![], Some(7)), "the list goes on after entries that cannot be read");
    let page = query.page([entry(9, Kind::Set), entry(7, Kind::Opening), entry(6, Kind::Set)].map(row).to_vec());
    assert_eq!((sequences(&page), page.next), (vec![9, 7], None));
    assert_eq!((query.rows(), query.before()), (3, i64::MAX));
    assert!(LedgerQuery::new(Uuid::nil(), 101, None).is_err());
}

#[test]
fn fold_sums_the_old_entries() {
    let entries = [
        foldable(1, Kind::Opening, 10),
        foldable(2, Kind::Adjustment, -3),
        foldable(3, Kind::Opening, 7),
        foldable(4, Kind::Fulfilment, -2),
        foldable(5, Kind::Set, 20),
    ];
    let fold = |before: u64| {
        let fold = Fold::of(&entries, OffsetDateTime::UNIX_EPOCH + Duration::from_secs(before))?;
        Some((fold.through.sequence, fold.units, fold.entries))
    };
    assert_eq!((fold(0), fold(2)), (None, None), "a single opening stays");
    assert_eq!((fold(3), fold(4)), (Some((2, 7, 2)), Some((3, 7, 3))));
    assert_eq!((fold(5), fold(9)), (Some((4, 5, 4)), Some((5, 25, 5))));
}

#[test]
fn kinds_have_names() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::parse("sale"), None);
}
