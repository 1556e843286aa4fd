//! `weir tenant` and `weir key`: manage tenants and API keys in the ledger.
//!
//! The commands need no API key, because write access to the data folder already gives full control of the host. All commands
//! but `weir tenant delete` work while a server uses the folder. The server applies a change from the next request on.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use weir_control::api_key::{GeneratedApiKey, generate_api_key};
use weir_core::TenantId;
use weir_core::clock::unix_time_millis;
use weir_core::retention::RetentionPeriods;
use weir_core::settings::Settings;
use weir_core::tenancy::{
    KeyScope, OverridableNumbers, Quotas, Tenant, TenantState, TenantStore, TenantUpdate,
};

use crate::app_folders::AppFolders;
use crate::args::{KeyCommand, TenantCommand};
use crate::host_services;
use crate::ledger_access::{open_ledger_to_change_tenants, open_or_create_ledger_to_change_tenants};
use crate::terminal::{await_with_progress, out_line};

const MILLIS_PER_DAY: u64 = 86_400_000;

/// Returns the record of a new tenant with the default weight and the quotas of the host.
pub(crate) fn new_tenant_record(id: &TenantId) -> Tenant {
    Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        retention: RetentionPeriods::default(),
        created_millis: unix_time_millis(),
    }
}

/// Creates an API key, stores its record and returns the key. The key cannot be read again later.
pub(crate) async fn create_api_key(
    registry: &dyn TenantStore,
    tenant: &TenantId,
    scopes: Vec<KeyScope>,
    label: &str,
    days: Option<u32>,
) -> Result<GeneratedApiKey> {
    let now = unix_time_millis();
    let expires = days.map(|days| now + u64::from(days) * MILLIS_PER_DAY);
    let key = generate_api_key(tenant, scopes, label, now, expires)?;
    registry.put_api_key(&key.record).await?;
    Ok(key)
}

/// Runs a `weir tenant` command.
pub(crate) async fn run_tenant_command(
    command: &TenantCommand,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    match command {
        TenantCommand::Create {
            tenant,
            weight,
            quotas,
            retention,
        } => {
            let registry = open_or_create_ledger_to_change_tenants(settings, folders).await?;
            let mut record = new_tenant_record(tenant);
            record.weight = *weight;
            apply_overrides(&mut record.quotas, quotas)?;
            apply_overrides(&mut record.retention, retention)?;
            if !registry.create_tenant(&record).await? {
                bail!("tenant {tenant} already exists: `weir tenant list` lists the tenants");
            }
            let key = create_api_key(
                &registry,
                tenant,
                vec![KeyScope::Ingest, KeyScope::Read],
                "first key",
                None,
            )
            .await?;
            print_new_api_key(json, &key)?;
        }
        TenantCommand::List => {
            print_tenants(&open_ledger_to_change_tenants(settings, folders).await?, json).await?
        }
        TenantCommand::Set {
            tenant,
            weight,
            quotas,
            retention,
        } => {
            let registry = open_ledger_to_change_tenants(settings, folders).await?;
            let update = TenantUpdate {
                state: None,
                weight: *weight,
                quotas: apply_overrides(&mut Quotas::default(), quotas)?,
                retention: apply_overrides(&mut RetentionPeriods::default(), retention)?,
            };
            update_tenant(&registry, tenant, &update).await?;
        }
        TenantCommand::RotateKeys { tenant } => {
            let registry = open_ledger_to_change_tenants(settings, folders).await?;
            require_tenant(&registry, tenant).await?;
            let old = registry.list_api_keys(tenant).await?;
            let usable = |k: &&weir_core::tenancy::ApiKeyRecord| k.revoked_millis.is_none();
            let mut scopes: Vec<KeyScope> =
                old.iter().filter(usable).flat_map(|k| k.scopes.clone()).collect();
            if scopes.is_empty() {
                scopes = vec![KeyScope::Ingest, KeyScope::Read];
            }
            let key = create_api_key(&registry, tenant, scopes, "rotated", None).await?;
            for record in old.iter().filter(usable) {
                registry.revoke_api_key(&record.id, unix_time_millis()).await?;
            }
            print_new_api_key(json, &key)?;
        }
        TenantCommand::Suspend { tenant } => {
            set_tenant_state(settings, folders, tenant, TenantState::Suspended).await?
        }
        TenantCommand::Resume { tenant } => {
            set_tenant_state(settings, folders, tenant, TenantState::Active).await?
        }
        TenantCommand::Delete { tenant } => {
            require_tenant(&open_ledger_to_change_tenants(settings, folders).await?, tenant).await?;
            await_with_progress(
                "deleting the tenant's documents",
                host_services::remove_tenant(settings, folders, tenant),
            )
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a `weir key` command.
pub(crate) async fn run_key_command(
    command: &KeyCommand,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    let registry = open_ledger_to_change_tenants(settings, folders).await?;
    match command {
        KeyCommand::Create {
            tenant,
            scopes,
            label,
            days,
        } => {
            require_tenant(&registry, tenant).await?;
            let key = create_api_key(&registry, tenant, scopes.clone(), label, *days).await?;
            print_new_api_key(json, &key)?;
        }
        KeyCommand::List { tenant } => {
            require_tenant(&registry, tenant).await?;
            let now = unix_time_millis();
            for key in registry.list_api_keys(tenant).await? {
                let scopes: Vec<_> = key.scopes.iter().map(|s| s.name()).collect();
                let state = match (key.revoked_millis, key.expires_millis) {
                    (Some(_), _) => "revoked",
                    (None, Some(end)) if end <= now => "expired",
                    _ => "active",
                };
                if json {
                    out_line!(
                        "{}",
                        serde_json::json!({
                            "key": key.id, "tenant": key.tenant, "scopes": key.scopes, "label": key.display_name,
                            "created_millis": key.created_millis, "expires_millis": key.expires_millis, "state": state,
                        })
                    )?;
                } else {
                    out_line!(
                        "{}  {state:<8} {:<32} {}",
                        key.id,
                        scopes.join(","),
                        key.display_name
                    )?;
                }
            }
        }
        KeyCommand::Revoke { key } => {
            if !registry.revoke_api_key(key, unix_time_millis()).await? {
                bail!("there is no API key with the id {key}: `weir key list TENANT` lists the ids");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn require_tenant(registry: &dyn TenantStore, tenant: &TenantId) -> Result<Tenant> {
    match registry.find_tenant(tenant).await? {
        Some(record) => Ok(record),
        None => Err(unknown_tenant_error(tenant)),
    }
}

async fn set_tenant_state(
    settings: &Settings,
    folders: &AppFolders,
    tenant: &TenantId,
    state: TenantState,
) -> Result<()> {
    let registry = open_ledger_to_change_tenants(settings, folders).await?;
    let update = TenantUpdate {
        state: Some(state),
        ..TenantUpdate::default()
    };
    update_tenant(&registry, tenant, &update).await
}

async fn update_tenant(registry: &dyn TenantStore, tenant: &TenantId, update: &TenantUpdate) -> Result<()> {
    match registry.update_tenant(tenant, update).await? {
        Some(_) => Ok(()),
        None => Err(unknown_tenant_error(tenant)),
    }
}

fn unknown_tenant_error(tenant: &TenantId) -> anyhow::Error {
    anyhow!("there is no tenant {tenant}: `weir tenant list` lists the tenants")
}

/// Applies the numbers of options such as `--quota`, and returns them for an update of the stored tenant.
fn apply_overrides(
    numbers: &mut impl OverridableNumbers,
    new: &[(String, u64)],
) -> Result<Vec<(String, Option<u64>)>> {
    let changes = new.iter().map(|(name, value)| (name.clone(), Some(*value)));
    changes
        .map(|(name, value)| {
            numbers.set_by_name(&name, value)?;
            Ok((name, value))
        })
        .collect()
}

async fn print_tenants(registry: &dyn TenantStore, json: bool) -> Result<()> {
    for tenant in registry.list_tenants().await? {
        if json {
            out_line!("{}", serde_json::to_string(&tenant)?)?;
        } else {
            let state = match tenant.state {
                TenantState::Active => "active",
                TenantState::Suspended => "suspended",
            };
            out_line!("{:<24} {state:<10} weight {}", tenant.id, tenant.weight)?;
        }
    }
    Ok(())
}

fn print_new_api_key(json: bool, key: &GeneratedApiKey) -> std::io::Result<()> {
    let record = &key.record;
    if json {
        out_line!(
            "{}",
            serde_json::json!({ "tenant": record.tenant, "key": record.id, "secret": key.full_key, "scopes": record.scopes })
        )
    } else {
        out_line!(
            "API key of tenant {}, printed only once: {}",
            record.tenant,
            key.full_key
        )
    }
}
