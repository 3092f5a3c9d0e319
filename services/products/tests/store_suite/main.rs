//! Conformance suite of the product stores.
#![expect(clippy::unwrap_used, reason = "a case may panic on unexpected results")]

mod catalogue;
mod concurrency;
mod erasure;
mod expiry;
mod fixtures;
mod fulfilment;
mod history;
mod idempotency;
mod ledger;
mod outage;
mod outbox;
mod patches;
mod pooling;
mod reservations;
mod retention;
mod revisions;
mod robustness;
mod upgrade;

/// Runs every case against every store, each on a fresh database.
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
    catalogue::create_update_and_remove_are_persistent,
    catalogue::expected_version_guards_update_and_remove,
    catalogue::conditions_are_evaluated_with_the_write,
    catalogue::text_is_stored_literally,
    catalogue::pages_are_stable_under_concurrent_inserts,
    catalogue::filters_narrow_the_list,
    catalogue::search_text_is_not_a_pattern,
    catalogue::search_folds_case_and_normalizes,
    catalogue::search_combines_with_every_filter,
    outbox::changes_are_unpublished_until_marked,
    outbox::relay_lease_is_exclusive,
    outbox::outbox_of_a_broker_is_not_drained_in_process,
    idempotency::repeated_key_replays_the_first_response,
    idempotency::replay_does_not_recreate_a_removed_product,
    idempotency::key_expires_after_its_ttl,
    idempotency::keys_of_a_subject_are_erased,
    idempotency::concurrent_creates_with_one_key_create_one_product,
    reservations::every_call_in_every_state,
    reservations::refused_reservation_takes_nothing_and_is_final,
    reservations::total_above_its_limit_is_refused,
    reservations::reserve_copies_names_and_prices,
    reservations::stock_changes_increment_the_version,
    reservations::product_in_use_is_not_removed,
    reservations::update_of_quantity_adjusts_the_supply,
    fulfilment::fulfilled_units_leave_the_stock_once,
    fulfilment::only_a_confirmed_reservation_is_fulfilled,
    fulfilment::concurrent_fulfilments_take_off_once,
    revisions::difference_is_taken_and_given_back_once,
    revisions::refused_revision_changes_nothing_and_is_final,
    revisions::only_a_confirmed_reservation_is_revised,
    revisions::earlier_revision_is_rejected,
    revisions::concurrent_revisions_and_releases_balance,
    erasure::subject_is_erased_everywhere,
    erasure::authors_are_erased_in_batches,
    erasure::actors_are_erased_in_batches,
    history::every_change_of_a_catalogue_field_is_recorded,
    history::other_writes_add_no_entry,
    history::concurrent_edits_form_a_chain,
    history::history_keeps_the_latest_changes,
    history::history_ends_with_its_product,
    ledger::every_change_of_the_supply_is_recorded,
    ledger::impossible_adjustment_changes_nothing,
    ledger::repeated_adjustment_replays_the_first_answer,
    ledger::concurrent_repeats_adjust_once,
    ledger::adjustments_never_oversell,
    ledger::ledger_ends_with_its_product,
    ledger::old_entries_are_folded,
    ledger::concurrent_folds_keep_the_sum,
    ledger::settled_ledger_needs_no_upkeep,
    patches::patch_changes_only_its_fields,
    patches::edits_do_not_fight_sales,
    patches::concurrent_edits_and_sales_lose_nothing,
    retention::settled_reservations_are_deleted_after_their_retention,
    retention::deletion_is_bounded,
    reservations::open_reservations_are_paginated,
    reservations::reservation_of_100_lines_is_atomic,
    expiry::expired_holds_are_released_in_batches,
    expiry::sweeper_runs_until_stopped,
    robustness::probe_succeeds_and_counts_are_zero,
    robustness::reservation_list_continues_after_each_page,
    concurrency::concurrent_reserves_never_oversell,
    concurrency::concurrent_calls_of_one_reservation_take_once,
    concurrency::random_interleavings_balance,
    concurrency::cancelled_callers_do_not_interrupt_writes,
    concurrency::interrupted_calls_are_finished_or_undone,
    concurrency::audit_has_no_false_violations,
}
