//! Redis connection with a timeout per operation and a cooldown after a failure.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisResult, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use crate::metrics::{Operation, Outcome, redis_operations};

/// Time without Redis operations after a failure.
const COOLDOWN: Duration = Duration::from_secs(1);

/// Multiplexed connection. Connects on first use and reconnects after a failure.
pub(super) struct RedisConnection {
    client: Client,
    timeout: Duration,
    connection: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    cooldown_until: Mutex<Option<Instant>>,
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client contains the password.
        f.write_str("RedisConnection")
    }
}

impl RedisConnection {
    pub(super) fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, connection: tokio::sync::Mutex::default(), cooldown_until: Mutex::default() }
    }

    /// Runs `commands`. Returns `None` after a failure or during the cooldown, and counts it.
    pub(super) async fn run<T: FromRedisValue>(&self, operation: Operation, commands: &Pipeline) -> Option<T> {
        if self.cooldown_until.lock().is_some_and(|until| Instant::now() < until) {
            redis_operations(operation, Outcome::Skipped).increment(1);
            return None;
        }
        let reason = match timeout(self.timeout, self.query(commands)).await {
            Ok(Ok(reply)) => return Some(reply),
            Ok(Err(error)) => error.category().to_owned(),
            Err(_) => "timed out".to_owned(),
        };
        tracing::debug!(reason, "redis cooldown after failure");
        redis_operations(operation, Outcome::Failed).increment(1);
        *self.cooldown_until.lock() = Some(Instant::now() + COOLDOWN);
        // The connection may be dead: a partitioned network reports no error for minutes.
        *self.connection.lock().await = None;
        None
    }

    /// Readiness probe: pings Redis over a new connection.
    pub(super) async fn ping(&self) -> Result<(), String> {
        let mut connection = self.connect().await.map_err(|error| error.category().to_owned())?;
        redis::cmd("PING").exec_async(&mut connection).await.map_err(|error| error.category().to_owned())
    }

    async fn query<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let mut connection = {
            let mut slot = self.connection.lock().await;
            match &*slot {
                Some(connection) => connection.clone(),
                None => slot.insert(self.connect().await?).clone(),
            }
        };
        commands.query_async(&mut connection).await
    }

    /// Connects without the driver's timeouts: every caller sets one.
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let unlimited = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&unlimited).await
    }
}
