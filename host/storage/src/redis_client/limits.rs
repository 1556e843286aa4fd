//! Request rates and open streams in Redis. The scripts use the clock of the server.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use weir_core::StorageError;
use weir_core::shared_limits::{RateLimit, SharedLimitStore};

use super::RedisClient;

/// The generic cell rate algorithm (ITU-T I.371): the key has the theoretical time of the next request in microseconds. Returns the
/// microseconds to wait, or 0.
static COUNT_REQUEST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000000 + time[2]
         local interval = tonumber(ARGV[1])
         local tolerance = tonumber(ARGV[2])
         local next = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
         if next - now > tolerance then
             return next - now - tolerance
         end
         next = next + interval
         redis.call('SET', KEYS[1], string.format('%.0f', next), 'PX', math.ceil((next - now) / 1000) + 1)
         return 0",
    )
});

/// The key is a hash with a field for each node: its open streams, and until when they count, in milliseconds. Returns 1 or 0.
static SET_OPEN_STREAMS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local time = redis.call('TIME')
         local now = time[1] * 1000 + math.floor(time[2] / 1000)
         local node, open, max, lease = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
         local total = open
         local fields = redis.call('HGETALL', KEYS[1])
         for i = 1, #fields, 2 do
             local count, valid_until = string.match(fields[i + 1], '^(%d+) (%d+)$')
             if tonumber(valid_until) < now then
                 redis.call('HDEL', KEYS[1], fields[i])
             elseif fields[i] ~= node then
                 total = total + tonumber(count)
             end
         end
         if total > max then
             return 0
         end
         if open == 0 then
             redis.call('HDEL', KEYS[1], node)
         else
             redis.call('HSET', KEYS[1], node, string.format('%d %.0f', open, now + lease))
             redis.call('PEXPIRE', KEYS[1], lease)
         end
         return 1",
    )
});

#[async_trait]
impl SharedLimitStore for RedisClient {
    async fn count_request(&self, name: &str, limit: RateLimit) -> Result<Option<Duration>, StorageError> {
        let interval_micros = (1_000_000 / u64::from(limit.per_second.max(1))).max(1);
        let tolerance_micros = interval_micros * u64::from(limit.burst.max(1) - 1);
        let key = self.key(&["rate", name]);
        let wait_micros = self
            .call(|mut connection| async move {
                COUNT_REQUEST
                    .key(key)
                    .arg(interval_micros)
                    .arg(tolerance_micros)
                    .invoke_async::<u64>(&mut connection)
                    .await
            })
            .await?;
        Ok((wait_micros > 0).then(|| Duration::from_micros(wait_micros)))
    }

    async fn try_set_open_streams(
        &self,
        name: &str,
        node: &str,
        open: u32,
        max: u32,
        lease: Duration,
    ) -> Result<bool, StorageError> {
        let key = self.key(&["streams", name]);
        let lease_millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.call(|mut connection| async move {
            SET_OPEN_STREAMS
                .key(key)
                .arg(node)
                .arg(open)
                .arg(max)
                .arg(lease_millis)
                .invoke_async::<bool>(&mut connection)
                .await
        })
        .await
    }
}
