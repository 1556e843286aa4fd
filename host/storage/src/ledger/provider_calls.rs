//! Calls of language model providers by all nodes.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::StorageError;
use weir_core::job_claim::NodeId;
use weir_core::provider_call_limits::{
    CallAdmission, LoadDecision, MAX_ADMISSION_AGE, MAX_ASK_INTERVAL, ProviderCallId, ProviderCallRequest,
    ProviderCallStore, ProviderLoad, RATE_WINDOW, TURN_GRACE, TurnOrder,
};

use super::column_values::{to_sql_integer, to_sql_millis};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

#[async_trait]
impl ProviderCallStore for SqlLedger {
    async fn begin_call(&self, request: &ProviderCallRequest) -> Result<CallAdmission, StorageError> {
        let request = request.clone();
        self.database
            .run_write_transaction(LockedTenants::only_provider(&request.provider), move |t| {
                begin_call(t, &request)
            })
            .await
    }

    async fn end_call(&self, call: ProviderCallId, used_tokens: Option<u64>) -> Result<(), StorageError> {
        let sql = "UPDATE provider_calls SET in_flight = FALSE, tokens = coalesce(?2, tokens) WHERE id = ?1";
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                t.execute(sql, params![call.to_string(), used_tokens.map(to_sql_integer)])
            })
            .await
    }

    // The lock makes it wait for a transaction that began the call and whose response was lost.
    async fn withdraw_call(&self, provider: &str, call: ProviderCallId) -> Result<(), StorageError> {
        self.database
            .run_write_transaction(LockedTenants::only_provider(provider), move |t| {
                t.execute(
                    "DELETE FROM provider_calls WHERE id = ?1",
                    params![call.to_string()],
                )
            })
            .await
    }

    async fn give_up_turn(&self, provider: &str, node: &NodeId) -> Result<(), StorageError> {
        let (provider, node) = (provider.to_owned(), node.clone());
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| delete_wait(t, &provider, &node))
            .await
    }
}

/// The calls of a node to a provider.
struct NodeCalls {
    node: String,
    in_flight: u64,
    in_window: u64,
    tokens_in_window: u64,
}

fn begin_call(t: &SqlConnection<'_>, request: &ProviderCallRequest) -> SqlResult<CallAdmission> {
    let provider = request.provider.as_str();
    delete_expired_rows(t, provider)?;
    let now = t.now_millis();
    let (now, is_alive): (i64, bool) = t.query_one(
        &format!("SELECT {now}, EXISTS (SELECT 1 FROM nodes WHERE id = ?1 AND lease_until_millis >= {now})"),
        params![request.node.as_str()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if !is_alive {
        return Ok(CallAdmission::NodeNotAlive);
    }
    let window_start = now.saturating_sub(to_sql_millis(RATE_WINDOW));
    let load = load_of_provider(t, request, now, window_start)?;
    match load.decide_start(&request.limits, request.estimated_tokens) {
        LoadDecision::Start => {
            t.execute(
                "INSERT INTO provider_calls (id, provider, node, started_millis, tokens, in_flight)
                 VALUES (?1, ?2, ?3, ?4, ?5, TRUE)",
                params![
                    request.call.to_string(),
                    provider,
                    request.node.as_str(),
                    now,
                    to_sql_integer(request.estimated_tokens)
                ],
            )?;
            keep_wait_for_next_call(t, request, now)?;
            Ok(CallAdmission::Started)
        }
        LoadDecision::WaitForTurn => {
            put_wait(t, request, now, Duration::ZERO)?;
            Ok(CallAdmission::Queued {
                nodes_ahead: u32::try_from(load.nodes_ahead).unwrap_or(u32::MAX),
            })
        }
        LoadDecision::WaitForWindow { calls, tokens } => {
            let leaves_window = t.query_optional(
                "SELECT started_millis FROM (
                     SELECT started_millis, row_number() OVER oldest AS calls, sum(tokens) OVER oldest AS tokens
                     FROM provider_calls WHERE provider = ?1 AND started_millis > ?2
                     WINDOW oldest AS (ORDER BY started_millis, id)
                 ) AS in_window
                 WHERE calls >= ?3 AND tokens >= CAST(?4 AS BIGINT) ORDER BY started_millis LIMIT 1",
                params![
                    provider,
                    window_start,
                    to_sql_integer(calls),
                    to_sql_integer(tokens)
                ],
                |row| row.get::<i64>(0),
            )?;
            // If there is none, a call that ended meanwhile has used fewer tokens.
            let wait = leaves_window.map_or(0, |started| started.saturating_sub(window_start));
            let wait = Duration::from_millis(wait.try_into().unwrap_or_default());
            put_wait(t, request, now, wait)?;
            Ok(CallAdmission::RetryAfter(wait))
        }
    }
}

/// Deletes the calls that count for nothing any more, and the waits of nodes that have given up.
fn delete_expired_rows(t: &SqlConnection<'_>, provider: &str) -> SqlResult<()> {
    let now = t.now_millis();
    let calls = format!(
        "DELETE FROM provider_calls WHERE provider = ?1 AND started_millis <= {now} - ?2
         AND NOT (in_flight AND node IN (SELECT id FROM nodes WHERE lease_until_millis >= {now}))"
    );
    t.execute(&calls, params![provider, to_sql_millis(RATE_WINDOW)])?;
    let waits = format!(
        "DELETE FROM provider_call_waits WHERE provider = ?1
         AND (expires_millis < {now} OR node NOT IN (SELECT id FROM nodes WHERE lease_until_millis >= {now}))"
    );
    t.execute(&waits, params![provider])
}

/// Returns the use of the provider, from the view of the node that asks.
fn load_of_provider(
    t: &SqlConnection<'_>,
    request: &ProviderCallRequest,
    now: i64,
    window_start: i64,
) -> SqlResult<ProviderLoad> {
    let provider = request.provider.as_str();
    let calls = t.query_rows(
        "SELECT node,
                sum(CASE WHEN in_flight AND EXISTS (SELECT 1 FROM nodes WHERE id = node AND lease_until_millis >= ?2) THEN 1 ELSE 0 END),
                sum(CASE WHEN started_millis > ?3 THEN 1 ELSE 0 END),
                CAST(sum(CASE WHEN started_millis > ?3 THEN tokens ELSE 0 END) AS BIGINT)
         FROM provider_calls WHERE provider = ?1 GROUP BY node",
        params![provider, now, window_start],
        |row| {
            Ok(NodeCalls {
                node: row.get(0)?,
                in_flight: row.get(1)?,
                in_window: row.get(2)?,
                tokens_in_window: row.get(3)?,
            })
        },
    )?;
    let waits = t.query_rows(
        "SELECT node, since_millis, tokens FROM provider_call_waits WHERE provider = ?1",
        params![provider],
        |row| Ok((row.get::<String>(0)?, row.get::<i64>(1)?, row.get::<u64>(2)?)),
    )?;
    let turn = |node: &str, waiting_since: i64| {
        let of_node = calls.iter().find(|of_node| of_node.node == node);
        TurnOrder {
            calls_in_flight: of_node.map_or(0, |of_node| of_node.in_flight),
            calls_in_window: of_node.map_or(0, |of_node| of_node.in_window),
            waiting_since,
            node: node.to_owned(),
        }
    };
    let own_wait = waits.iter().find(|(node, ..)| node == request.node.as_str());
    let own_turn = turn(
        request.node.as_str(),
        own_wait.map_or(now, |(_, since, _)| *since),
    );
    let mut load = ProviderLoad::default();
    for of_node in &calls {
        load.calls_in_flight += of_node.in_flight;
        load.calls_in_window += of_node.in_window;
        load.tokens_in_window = load.tokens_in_window.saturating_add(of_node.tokens_in_window);
    }
    for (node, since, tokens) in &waits {
        if turn(node, *since) < own_turn {
            load.nodes_ahead += 1;
            load.tokens_ahead = load.tokens_ahead.saturating_add(*tokens);
        }
    }
    Ok(load)
}

/// Gives the node a turn, or keeps the one that it has.
fn put_wait(t: &SqlConnection<'_>, request: &ProviderCallRequest, now: i64, wait: Duration) -> SqlResult<()> {
    let expires = now.saturating_add(to_sql_millis(wait.min(MAX_ASK_INTERVAL) + TURN_GRACE));
    t.execute(
        "INSERT INTO provider_call_waits (provider, node, since_millis, expires_millis, tokens)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (provider, node) DO UPDATE SET expires_millis = ?4, tokens = ?5",
        params![
            request.provider,
            request.node.as_str(),
            now,
            expires,
            to_sql_integer(request.estimated_tokens)
        ],
    )
}

/// A node that has waited keeps its turn for a moment, because it may have further calls to make. Otherwise a node with more calls could be
/// faster each time.
fn keep_wait_for_next_call(t: &SqlConnection<'_>, request: &ProviderCallRequest, now: i64) -> SqlResult<()> {
    let expires = now.saturating_add(to_sql_millis(MAX_ADMISSION_AGE));
    t.execute(
        "UPDATE provider_call_waits SET since_millis = ?3, expires_millis = ?4 WHERE provider = ?1 AND node = ?2",
        params![request.provider, request.node.as_str(), now, expires],
    )
}

fn delete_wait(t: &SqlConnection<'_>, provider: &str, node: &NodeId) -> SqlResult<()> {
    t.execute(
        "DELETE FROM provider_call_waits WHERE provider = ?1 AND node = ?2",
        params![provider, node.as_str()],
    )
}
