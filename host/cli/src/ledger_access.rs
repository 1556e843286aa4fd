//! Opens the ledger that the settings name, for commands that do not run jobs.

use anyhow::{Context as _, Result};
use weir_core::StorageError;
use weir_core::settings::Settings;
use weir_storage::{PostgresConnectionSettings, SqlLedger};

use crate::app_folders::AppFolders;

/// Connects to the PostgreSQL server of the settings and creates or upgrades its tables. `None` if the ledger is in the data folder.
pub(crate) async fn connect_postgres(settings: &Settings) -> Result<Option<SqlLedger>> {
    let Some(connection) = postgres_connection(settings)? else {
        return Ok(None);
    };
    let connected = SqlLedger::connect_postgres(&connection).await;
    let ledger =
        connected.with_context(|| format!("cannot use {} (storage.ledger)", settings.storage_ledger))?;
    Ok(Some(ledger))
}

/// Returns the address of the PostgreSQL server of the settings. `None` if the ledger is in the data folder.
pub(crate) fn postgres_connection(settings: &Settings) -> Result<Option<PostgresConnectionSettings>> {
    if !settings.shares_ledger() {
        return Ok(None);
    }
    Ok(Some(PostgresConnectionSettings {
        url: settings.storage_ledger.clone(),
        password: read_secret_variable(
            &settings.storage_postgres_password_env,
            "storage.postgres_password_env",
        )?,
        max_connections: settings.storage_postgres_max_connections,
    }))
}

/// Reads the environment variable that a setting names. `None` if the setting is empty.
pub(crate) fn read_secret_variable(variable: &str, setting: &str) -> Result<Option<String>> {
    match variable {
        "" => Ok(None),
        name => std::env::var(name)
            .map(Some)
            .with_context(|| format!("the environment variable in {setting} is not set")),
    }
}

/// Opens the ledger for reading, also while another process writes it. `None` if the data folder has no ledger.
pub(crate) async fn open_ledger_to_read(
    settings: &Settings,
    folders: &AppFolders,
) -> Result<Option<SqlLedger>> {
    if let Some(ledger) = connect_postgres(settings).await? {
        return Ok(Some(ledger));
    }
    match SqlLedger::open_read_only(&folders.data) {
        Ok(ledger) => Ok(Some(ledger)),
        Err(StorageError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| folders.data_folder_error_context()),
    }
}

/// Opens the ledger to look up and change tenants and API keys, also while a server uses it.
pub(crate) async fn open_ledger_to_change_tenants(
    settings: &Settings,
    folders: &AppFolders,
) -> Result<SqlLedger> {
    match connect_postgres(settings).await? {
        Some(ledger) => Ok(ledger),
        None => SqlLedger::open_shared(&folders.data)
            .await
            .with_context(|| folders.data_folder_error_context()),
    }
}

/// Like [`open_ledger_to_change_tenants`], but creates the ledger in the data folder if it does not exist.
pub(crate) async fn open_or_create_ledger_to_change_tenants(
    settings: &Settings,
    folders: &AppFolders,
) -> Result<SqlLedger> {
    match connect_postgres(settings).await? {
        Some(ledger) => Ok(ledger),
        None => SqlLedger::open_or_create_shared(&folders.data)
            .await
            .with_context(|| folders.data_folder_error_context()),
    }
}
