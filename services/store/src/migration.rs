//! Schema migrations: one process at a time, one migration at a time, with their progress in the
//! log.
//!
//! A schema may be newer than this program: migrations only add, so that the program of the
//! previous release works beside and after a rollout.

use std::{collections::HashMap, time::Duration};

use sqlx::migrate::{Migrate, MigrateError, Migration, Migrator};
use tokio::time::{Instant, interval_at};

/// Table of the applied migrations.
const TABLE: &str = "_sqlx_migrations";
/// Interval of log entries during one migration.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// Applies all pending `migrations`. On PostgreSQL `connection` must hold the migration lock;
/// SQLite itself lets one process write at a time.
pub async fn apply_pending<C: Migrate + Send>(connection: &mut C, migrations: &Migrator) -> Result<(), MigrateError> {
    connection.ensure_migrations_table(TABLE).await?;
    if let Some(version) = connection.dirty_version(TABLE).await? {
        return Err(MigrateError::Dirty(version));
    }
    let applied = connection.list_applied_migrations(TABLE).await?;
    let newer = applied.iter().filter(|applied| !migrations.version_exists(applied.version)).count();
    if newer > 0 {
        tracing::info!(migrations = newer, "the schema is newer than this program");
    }
    let checksums: HashMap<i64, _> = applied.into_iter().map(|applied| (applied.version, applied.checksum)).collect();
    let mut pending = Vec::new();
    for migration in migrations.iter().filter(|migration| !migration.migration_type.is_down_migration()) {
        match checksums.get(&migration.version) {
            None => pending.push(migration),
            Some(checksum) if *checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(migration.version)),
        }
    }
    let total = pending.len();
    for (index, migration) in pending.into_iter().enumerate() {
        apply(connection, migration, (index + 1, total)).await?;
    }
    Ok(())
}

async fn apply<C: Migrate + Send>(connection: &mut C, migration: &Migration, (step, total): (usize, usize)) -> Result<(), MigrateError> {
    let (version, description) = (migration.version, &*migration.description);
    tracing::info!(version, description, step, total, "applying schema migration");
    let mut progress = interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let started = Instant::now();
    let mut applying = connection.apply(TABLE, migration);
    loop {
        tokio::select! {
            biased;
            result = &mut applying => {
                let seconds = result?.as_secs_f64();
                tracing::info!(version, seconds, "schema migration applied");
                return Ok(());
            }
            _ = progress.tick() => {
                tracing::info!(version, seconds = started.elapsed().as_secs(), "schema migration still running");
            }
        }
    }
}
