//! In a file of its own because `tests/loom_models.rs` includes `outlier_ejection.rs`.

use super::outlier_ejection::{EjectionLimit, EjectionSlot, max_ejected_count};

fn slots(count: usize, limit: usize) -> Vec<EjectionSlot> {
    let ejections = EjectionLimit::new("products");
    ejections.set_limit(limit, std::iter::empty());
    (0..count).map(|_| EjectionSlot::new(ejections.clone())).collect()
}

fn ejected(seats: &[EjectionSlot]) -> Vec<usize> {
    (0..seats.len()).filter(|index| seats[*index].is_ejected()).collect()
}

#[test]
fn ejected_count_is_half_and_at_least_one() {
    for (endpoints, limit) in [(2, 1), (3, 1), (4, 2), (5, 2), (64, 32)] {
        assert_eq!(max_ejected_count(0.5, endpoints), limit, "{endpoints}");
    }
    assert_eq!((max_ejected_count(0.1, 3), max_ejected_count(1.0, 3)), (1, 3));
}

#[test]
fn first_open_is_ejected_and_closing_frees_slot() {
    let seats = slots(4, 2);
    seats.iter().for_each(EjectionSlot::breaker_opened);
    assert_eq!(ejected(&seats), [0, 1]);
    seats[0].breaker_closed();
    seats[3].breaker_opened();
    assert_eq!(ejected(&seats), [1, 3]);
    seats[1].breaker_opened();
    seats[1].breaker_closed();
    seats[1].breaker_closed();
    seats[2].breaker_opened();
    assert_eq!(ejected(&seats), [2, 3]);
}

#[test]
fn lower_limit_readmits_endpoints() {
    let seats = slots(4, 2);
    seats.iter().for_each(EjectionSlot::breaker_opened);
    seats[0].ejections().set_limit(1, seats.iter());
    assert_eq!(ejected(&seats), [1]);
    seats[1].breaker_closed();
    seats[0].breaker_opened();
    assert_eq!(ejected(&seats), [0]);
}
