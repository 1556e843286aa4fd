//! Rows of the bytes that tenants store: one for each path, and their sum for each tenant, which triggers maintain.

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use weir_core::{StorageError, TenantId};

use super::column_values::read_and_parse_text;
use super::sql_connection::{SqlConnection, SqlResult};
use super::sql_values::{ToSqlValue as _, params};
use crate::changed_paths::PathRowUpdate;
use crate::path_with_public_name::PathWithPublicName;

/// Folders of the data folder with a subfolder of stored files for each tenant.
const COUNTED_FOLDERS: [&str; 3] = ["uploads", "blobs", "components"];

/// Returns the bytes that a tenant stores.
pub(super) fn find_stored_byte_count(c: &SqlConnection<'_>, tenant: &TenantId) -> SqlResult<u64> {
    let bytes = c.query_optional(
        "SELECT bytes FROM storage_usage WHERE tenant = ?1",
        params![tenant.as_str()],
        |row| row.get(0),
    )?;
    Ok(bytes.unwrap_or(0))
}

pub(super) fn write_path_updates(t: &SqlConnection<'_>, updates: &[PathRowUpdate]) -> SqlResult<()> {
    for update in updates {
        let row = &[update.tenant.as_str().to_sql_value(), update.path.to_sql_value()];
        if update.sets_changing_mark {
            insert_changing_path(t, &update.tenant, &update.path)?;
        }
        if update.added_bytes > 0 {
            // The row may have been removed with its tenant, and a file arrived afterwards.
            t.execute(
                "INSERT INTO stored_path_sizes (tenant, path, bytes, is_changing) VALUES (?1, ?2, ?3, TRUE)
                 ON CONFLICT (tenant, path) DO UPDATE SET bytes = stored_path_sizes.bytes + ?3",
                params![update.tenant.as_str(), update.path, update.added_bytes],
            )?;
        }
        if update.added_bytes < 0 {
            t.execute(
                "UPDATE stored_path_sizes SET bytes = CASE WHEN bytes + ?3 > 0 THEN bytes + ?3 ELSE 0 END
                 WHERE tenant = ?1 AND path = ?2",
                params![update.tenant.as_str(), update.path, update.added_bytes],
            )?;
        }
        if update.clears_changing_mark {
            t.execute(
                "DELETE FROM stored_path_sizes WHERE tenant = ?1 AND path = ?2 AND bytes = 0",
                row,
            )?;
            t.execute(
                "UPDATE stored_path_sizes SET is_changing = FALSE WHERE tenant = ?1 AND path = ?2",
                row,
            )?;
        }
    }
    Ok(())
}

fn insert_changing_path(t: &SqlConnection<'_>, tenant: &TenantId, path: &str) -> SqlResult<()> {
    t.execute(
        "INSERT INTO stored_path_sizes (tenant, path, bytes, is_changing) VALUES (?1, ?2, 0, TRUE)
         ON CONFLICT (tenant, path) DO UPDATE SET is_changing = TRUE",
        params![tenant.as_str(), path],
    )
}

/// Measures the paths that the last process was changing when it ended without closing the ledger. `measure_path` returns the bytes of a
/// tenant's path.
pub(super) fn measure_changing_paths<E: Display>(
    t: &SqlConnection<'_>,
    mut measure_path: impl FnMut(&TenantId, &str) -> Result<i64, E>,
) -> SqlResult<()> {
    let changing: Vec<(TenantId, String)> = t.query_rows(
        "SELECT tenant, path FROM stored_path_sizes WHERE is_changing",
        params![],
        |row| Ok((read_and_parse_text(row, 0)?, row.get(1)?)),
    )?;
    for (tenant, path) in changing {
        match measure_path(&tenant, &path) {
            Ok(bytes) => write_measured_byte_count(t, &tenant, &path, bytes)?,
            Err(error) => {
                tracing::warn!(%tenant, path, %error, "stored files could not be measured: their last known size applies until the next start");
            }
        }
    }
    Ok(())
}

fn write_measured_byte_count(
    t: &SqlConnection<'_>,
    tenant: &TenantId,
    path: &str,
    bytes: i64,
) -> SqlResult<()> {
    match bytes {
        0 => t.execute(
            "DELETE FROM stored_path_sizes WHERE tenant = ?1 AND path = ?2",
            params![tenant.as_str(), path],
        ),
        _ => t.execute(
            "UPDATE stored_path_sizes SET bytes = ?3, is_changing = FALSE WHERE tenant = ?1 AND path = ?2",
            params![tenant.as_str(), path, bytes],
        ),
    }
}

/// Lists the paths of all stored files, for the upgrade of a ledger that has no rows for them.
pub(super) fn list_stored_paths_on_disk(data: &Path) -> Result<Vec<(TenantId, String)>, StorageError> {
    let mut paths = Vec::new();
    for folder in COUNTED_FOLDERS {
        for tenant in list_folder_entry_names(&data.join(folder))? {
            // The other names are folders of unfinished files.
            let Ok(id) = tenant.parse::<TenantId>() else {
                continue;
            };
            let names = list_folder_entry_names(&data.join(folder).join(&tenant))?;
            paths.extend(
                names
                    .into_iter()
                    .map(|name| (id.clone(), format!("{folder}/{tenant}/{name}"))),
            );
        }
    }
    Ok(paths)
}

/// Lists the entries of a folder; none if it does not exist.
fn list_folder_entry_names(folder: &Path) -> Result<Vec<String>, StorageError> {
    let io = |e: io::Error| PathWithPublicName::new("the folder of tenants' files", folder).io_error(&e);
    let entries = match fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(io)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    Ok(names)
}

/// Adds the paths as changing, so that they are measured.
pub(super) fn insert_stored_paths_as_changing(
    t: &SqlConnection<'_>,
    paths: &[(TenantId, String)],
) -> SqlResult<()> {
    paths
        .iter()
        .try_for_each(|(tenant, path)| insert_changing_path(t, tenant, path))
}
