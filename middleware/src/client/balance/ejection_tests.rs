//! Beside `ejection.rs`, not in it: `tests/interleavings.rs` includes that file.

use super::ejection::{Ejections, Seat, most};

fn seats(count: usize, limit: usize) -> Vec<Seat> {
    let ejections = Ejections::new("products");
    ejections.limit(limit, std::iter::empty());
    (0..count).map(|_| Seat::new(ejections.clone())).collect()
}

fn out(seats: &[Seat]) -> Vec<usize> {
    (0..seats.len()).filter(|index| seats[*index].is_out()).collect()
}

#[test]
fn half_but_at_least_one() {
    for (endpoints, limit) in [(2, 1), (3, 1), (4, 2), (5, 2), (64, 32)] {
        assert_eq!(most(0.5, endpoints), limit, "{endpoints}");
    }
    assert_eq!((most(0.1, 3), most(1.0, 3)), (1, 3));
}

#[test]
fn who_opens_first_is_out_and_who_closes_makes_room() {
    let seats = seats(4, 2);
    seats.iter().for_each(Seat::opened);
    assert_eq!(out(&seats), [0, 1]);
    seats[0].closed();
    seats[3].opened();
    assert_eq!(out(&seats), [1, 3]);
    seats[1].opened();
    seats[1].closed();
    seats[1].closed();
    seats[2].opened();
    assert_eq!(out(&seats), [2, 3]);
}

#[test]
fn a_lower_limit_takes_some_in_again() {
    let seats = seats(4, 2);
    seats.iter().for_each(Seat::opened);
    seats[0].ejections().limit(1, seats.iter());
    assert_eq!(out(&seats), [1]);
    seats[1].closed();
    seats[0].opened();
    assert_eq!(out(&seats), [0]);
}
