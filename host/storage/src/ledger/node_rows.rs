//! Records of nodes.

use std::time::Duration;

use async_trait::async_trait;
use weir_core::StorageError;
use weir_core::job_claim::NodeId;
use weir_core::node::{LOST_NODE_RETENTION, NodeInfo, NodeRecord, NodeRegistry};

use super::claim_rows::claim_from_row;
use super::column_values::{read_and_parse_text, to_sql_millis};
use super::locked_tenants::LockedTenants;
use super::sql_connection::{SqlConnection, SqlResult, SqlRow};
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

/// The first version of SQLite's schema that has the table. A reader opens a file of an earlier one without upgrading it.
const FIRST_SCHEMA_WITH_NODES: u32 = 16;

#[async_trait]
impl NodeRegistry for SqlLedger {
    async fn renew_node(&self, node: &NodeInfo, lease: Duration) -> Result<(), StorageError> {
        let node = node.clone();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| renew_node(t, &node, lease))
            .await
    }

    async fn remove_node(&self, node: &NodeId) -> Result<(), StorageError> {
        let node = node.clone();
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                t.execute("DELETE FROM nodes WHERE id = ?1", params![node.as_str()])
            })
            .await
    }

    async fn list_nodes(&self) -> Result<Vec<NodeRecord>, StorageError> {
        self.database.run_query(list_nodes).await
    }
}

fn renew_node(t: &SqlConnection<'_>, node: &NodeInfo, lease: Duration) -> SqlResult<()> {
    let now = t.now_millis();
    let lost = format!("DELETE FROM nodes WHERE lease_until_millis < {now} - ?1");
    t.execute(&lost, params![to_sql_millis(LOST_NODE_RETENTION)])?;
    // Of providers that are not in the settings of any node any more.
    let calls = format!("DELETE FROM provider_calls WHERE started_millis < {now} - ?1");
    t.execute(&calls, params![to_sql_millis(LOST_NODE_RETENTION)])?;
    let renewed = format!(
        "INSERT INTO nodes (id, role, version, started_millis, renewed_millis, lease_until_millis)
         VALUES (?1, ?2, ?3, {now}, {now}, {now} + ?4)
         ON CONFLICT (id) DO UPDATE SET renewed_millis = {now}, lease_until_millis = {now} + ?4"
    );
    t.execute(
        &renewed,
        params![
            node.id.as_str(),
            node.role.name(),
            node.version,
            to_sql_millis(lease)
        ],
    )
}

fn list_nodes(c: &SqlConnection<'_>) -> SqlResult<Vec<NodeRecord>> {
    if c.schema_version()? < FIRST_SCHEMA_WITH_NODES {
        return Ok(Vec::new());
    }
    let now = c.now_millis();
    let sql = format!(
        "SELECT id, role, version, started_millis, {now} - started_millis, {now} - renewed_millis,
                lease_until_millis >= {now}
         FROM nodes ORDER BY id"
    );
    let mut nodes = c.query_rows(&sql, params![], node_from_row)?;
    let claims = c.query_rows(
        "SELECT tenant, id, epoch, owner FROM jobs WHERE owner IS NOT NULL ORDER BY tenant, id",
        params![],
        |row| Ok((claim_from_row(row)?, row.get::<String>(3)?)),
    )?;
    for (claim, owner) in claims {
        if let Some(node) = nodes.iter_mut().find(|record| record.node.id.as_str() == owner) {
            node.claims.push(claim);
        }
    }
    Ok(nodes)
}

fn node_from_row(row: &SqlRow<'_>) -> SqlResult<NodeRecord> {
    let age = |column| -> SqlResult<Duration> {
        let millis: i64 = row.get(column)?;
        Ok(Duration::from_millis(millis.try_into().unwrap_or_default()))
    };
    Ok(NodeRecord {
        node: NodeInfo {
            id: NodeId::from_stored(row.get(0)?),
            role: read_and_parse_text(row, 1)?,
            version: row.get(2)?,
        },
        started_millis: row.get(3)?,
        uptime: age(4)?,
        last_renewal_age: age(5)?,
        is_alive: row.get(6)?,
        claims: Vec::new(),
    })
}
