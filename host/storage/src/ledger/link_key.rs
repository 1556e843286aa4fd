//! The key with which all hosts that use the ledger sign links.

use weir_core::StorageError;

use super::locked_tenants::LockedTenants;
use super::sql_ledger::SqlLedger;
use super::sql_values::params;

/// The size of the key.
pub const LINK_KEY_BYTES: usize = 32;

impl SqlLedger {
    /// Returns the key of signed links. If the ledger has none, `new_key` becomes the key.
    pub async fn load_or_set_link_key(
        &self,
        new_key: [u8; LINK_KEY_BYTES],
    ) -> Result<[u8; LINK_KEY_BYTES], StorageError> {
        self.database
            .run_write_transaction(LockedTenants::none(), move |t| {
                // A node that stores another key at the same time has to wait, and then reads this one.
                t.execute(
                    "INSERT INTO signing_keys (name, key) VALUES ('links', ?1) ON CONFLICT (name) DO NOTHING",
                    params![new_key.as_slice()],
                )?;
                t.query_one(
                    "SELECT key FROM signing_keys WHERE name = 'links'",
                    params![],
                    |row| row.get(0),
                )
            })
            .await
    }
}
