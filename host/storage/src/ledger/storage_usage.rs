//! Rows of the bytes that tenants store: one for each path, and their sum for each tenant, which triggers maintain.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Result, Transaction, params};
use weir_core::{StorageError, TenantId};

use super::column_values::{read_and_parse_text, read_u64};
use crate::changed_paths::PathRowUpdate;
use crate::path_with_public_name::PathWithPublicName;

/// Folders of the data folder with a subfolder of stored files for each tenant.
const COUNTED_FOLDERS: [&str; 3] = ["uploads", "blobs", "components"];

/// Returns the bytes that a tenant stores.
pub(super) fn find_stored_byte_count(c: &Connection, tenant: &TenantId) -> Result<u64> {
    let bytes = c
        .prepare_cached("SELECT bytes FROM storage_usage WHERE tenant = ?1")?
        .query_row([tenant.as_str()], |row| read_u64(row, 0))
        .optional()?;
    Ok(bytes.unwrap_or(0))
}

pub(super) fn write_path_updates(t: &Transaction<'_>, updates: &[PathRowUpdate]) -> Result<()> {
    for update in updates {
        let row = params![update.tenant.as_str(), update.path];
        if update.sets_changing_mark {
            insert_changing_path(t, &update.tenant, &update.path)?;
        }
        if update.added_bytes != 0 {
            let known = t
                .prepare_cached(
                    "UPDATE stored_path_sizes SET bytes = max(0, bytes + ?3) WHERE tenant = ?1 AND path = ?2",
                )?
                .execute(params![update.tenant.as_str(), update.path, update.added_bytes])?;
            // The row was removed with its tenant, and a file arrived afterwards.
            if known == 0 && update.added_bytes > 0 {
                t.prepare_cached(
                    "INSERT INTO stored_path_sizes (tenant, path, bytes, is_changing) VALUES (?1, ?2, ?3, TRUE)",
                )?
                .execute(params![
                    update.tenant.as_str(),
                    update.path,
                    update.added_bytes
                ])?;
            }
        }
        if update.clears_changing_mark {
            t.prepare_cached("DELETE FROM stored_path_sizes WHERE tenant = ?1 AND path = ?2 AND bytes = 0")?
                .execute(row)?;
            t.prepare_cached(
                "UPDATE stored_path_sizes SET is_changing = FALSE WHERE tenant = ?1 AND path = ?2",
            )?
            .execute(row)?;
        }
    }
    Ok(())
}

fn insert_changing_path(t: &Transaction<'_>, tenant: &TenantId, path: &str) -> Result<()> {
    t.prepare_cached(
        "INSERT INTO stored_path_sizes (tenant, path, bytes, is_changing) VALUES (?1, ?2, 0, TRUE)
         ON CONFLICT DO UPDATE SET is_changing = TRUE",
    )?
    .execute(params![tenant.as_str(), path])
    .map(drop)
}

/// Lists the paths whose files may have changed since their bytes were written.
pub(super) fn list_changing_paths(c: &Connection) -> Result<Vec<(TenantId, String)>> {
    c.prepare("SELECT tenant, path FROM stored_path_sizes WHERE is_changing")?
        .query_map([], |row| Ok((read_and_parse_text(row, 0)?, row.get(1)?)))?
        .collect()
}

/// Writes the measured bytes of a path.
pub(super) fn write_measured_byte_count(
    t: &Transaction<'_>,
    tenant: &TenantId,
    path: &str,
    bytes: i64,
) -> Result<()> {
    let sql = match bytes {
        0 => "DELETE FROM stored_path_sizes WHERE tenant = ?1 AND path = ?2 AND ?3 = 0",
        _ => "UPDATE stored_path_sizes SET bytes = ?3, is_changing = FALSE WHERE tenant = ?1 AND path = ?2",
    };
    t.prepare_cached(sql)?
        .execute(params![tenant.as_str(), path, bytes])
        .map(drop)
}

/// Lists the paths of all stored files, for the upgrade of a ledger that has no rows for them.
pub(super) fn list_stored_paths_on_disk(
    data: &Path,
) -> std::result::Result<Vec<(TenantId, String)>, StorageError> {
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
fn list_folder_entry_names(folder: &Path) -> std::result::Result<Vec<String>, StorageError> {
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
    t: &Transaction<'_>,
    paths: &[(TenantId, String)],
) -> Result<()> {
    paths
        .iter()
        .try_for_each(|(tenant, path)| insert_changing_path(t, tenant, path))
}
