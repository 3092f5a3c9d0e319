//! One suite for every store: what the service relies on, whoever keeps the products.
#![expect(clippy::unwrap_used, reason = "a case that cannot go on fails")]

mod catalogue;
mod concurrency;
mod fixtures;
mod idempotency;
mod news;
mod outage;
mod pooling;
mod reservations;
mod sweeping;

/// Runs every case over every store, each on a fresh database.
macro_rules! over_every_store {
    ($($module:ident::$case:ident),* $(,)?) => {
        over_every_store!(@ sqlite: $($module::$case),*);
        over_every_store!(@ mongo: $($module::$case),*);
    };
    (@ $store:ident: $($module:ident::$case:ident),*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    crate::$module::$case(crate::fixtures::$store().await).await;
                }
            )*
        }
    };
}

over_every_store! {
    catalogue::keeps_what_was_created_replaced_and_removed,
    catalogue::an_expected_version_guards_update_and_remove,
    catalogue::text_is_kept_literally,
    catalogue::pages_neither_skip_nor_repeat_while_others_insert,
    catalogue::filters_narrow_the_list,
    catalogue::a_search_text_is_no_pattern,
    news::every_change_is_news_until_it_is_told,
    news::one_relay_has_the_lease,
    idempotency::a_repeated_key_gives_the_first_answer,
    idempotency::a_replay_does_not_bring_a_removed_product_back,
    idempotency::a_key_expires,
    idempotency::many_creates_with_one_key_make_one_product,
    reservations::every_state_answers_every_call,
    reservations::a_refusal_takes_nothing_and_stays,
    reservations::copies_names_and_prices_of_that_time,
    reservations::stock_moves_change_the_version,
    reservations::a_product_in_use_is_not_removed,
    reservations::an_update_keeps_the_difference_as_an_adjustment,
    reservations::open_reservations_are_listed_in_pages,
    reservations::a_hundred_lines_are_one_reservation,
    sweeping::due_holds_are_given_back_in_batches,
    sweeping::the_sweeper_works_until_it_is_stopped,
    concurrency::never_oversells,
    concurrency::one_reservation_from_many_callers_is_taken_once,
    concurrency::random_interleavings_balance,
    concurrency::dropped_callers_of_a_bounded_store_lose_nothing,
    concurrency::work_stopped_anywhere_is_finished_or_undone,
    concurrency::the_audit_raises_no_false_alarm,
}
