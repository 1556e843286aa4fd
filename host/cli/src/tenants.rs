//! `weir tenant` and `weir key`: whoever can write to the data folder runs the host, so no key is asked for. All but deleting
//! works beside a server that holds the folder; its next request sees the change.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use weir_core::TenantId;
use weir_core::tenancy::{Quotas, Registry, Scope, Tenant, TenantState, TenantUpdate};
use weir_server::{FreshKey, mint};
use weir_storage::TenantDesk;

use crate::args::{KeyCommand, TenantCommand};
use crate::host;
use crate::places::Places;
use crate::terminal::{announce, out_line};

const DAY_MILLIS: u64 = 86_400_000;

async fn desk(places: &Places) -> Result<TenantDesk> {
    TenantDesk::open(&places.data)
        .await
        .with_context(|| places.opening())
}

/// A new tenant with the host's quotas.
pub(crate) fn fresh(id: &TenantId) -> Tenant {
    Tenant {
        id: id.clone(),
        state: TenantState::Active,
        weight: 1.0,
        quotas: Quotas::default(),
        created_millis: now_millis(),
    }
}

/// Makes a key and keeps its record.
pub(crate) async fn mint_key(
    registry: &dyn Registry,
    tenant: &TenantId,
    scopes: Vec<Scope>,
    label: &str,
    days: Option<u32>,
) -> Result<FreshKey> {
    let now = now_millis();
    let expires = days.map(|days| now + u64::from(days) * DAY_MILLIS);
    let key = mint(tenant, scopes, label, now, expires)?;
    registry.put_key(&key.record).await?;
    Ok(key)
}

/// `weir tenant …`.
pub(crate) async fn tenant(command: &TenantCommand, json: bool, places: &Places) -> Result<ExitCode> {
    match command {
        TenantCommand::Create {
            tenant,
            weight,
            quotas,
        } => {
            let registry = TenantDesk::create(&places.data)
                .await
                .with_context(|| places.opening())?;
            let mut record = fresh(tenant);
            record.weight = *weight;
            set_quotas(&mut record.quotas, quotas)?;
            if !registry.create_tenant(&record).await? {
                bail!("tenant {tenant} exists already: `weir tenant list` shows it");
            }
            let key = mint_key(
                &registry,
                tenant,
                vec![Scope::Ingest, Scope::Read],
                "first key",
                None,
            )
            .await?;
            show_key(json, &key)?;
        }
        TenantCommand::List => list(&desk(places).await?, json).await?,
        TenantCommand::Set {
            tenant,
            weight,
            quotas,
        } => {
            let registry = desk(places).await?;
            set_quotas(&mut Quotas::default(), quotas)?;
            let quotas = quotas.iter().map(|(name, limit)| (name.clone(), Some(*limit)));
            let update = TenantUpdate {
                state: None,
                weight: *weight,
                quotas: quotas.collect(),
            };
            change(&registry, tenant, &update).await?;
        }
        TenantCommand::Rotate { tenant } => {
            let registry = desk(places).await?;
            known(&registry, tenant).await?;
            let old = registry.keys(tenant).await?;
            let usable = |k: &&weir_core::tenancy::KeyRecord| k.revoked_millis.is_none();
            let mut scopes: Vec<Scope> = old.iter().filter(usable).flat_map(|k| k.scopes.clone()).collect();
            if scopes.is_empty() {
                scopes = vec![Scope::Ingest, Scope::Read];
            }
            let key = mint_key(&registry, tenant, scopes, "rotated", None).await?;
            for record in old.iter().filter(usable) {
                registry.revoke_key(&record.id, now_millis()).await?;
            }
            show_key(json, &key)?;
        }
        TenantCommand::Suspend { tenant } => set_state(places, tenant, TenantState::Suspended).await?,
        TenantCommand::Resume { tenant } => set_state(places, tenant, TenantState::Active).await?,
        TenantCommand::Delete { tenant } => {
            known(&desk(places).await?, tenant).await?;
            announce(
                "deleting the tenant's documents",
                host::delete_tenant(places, tenant),
            )
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `weir key …`.
pub(crate) async fn key(command: &KeyCommand, json: bool, places: &Places) -> Result<ExitCode> {
    let registry = desk(places).await?;
    match command {
        KeyCommand::Create {
            tenant,
            scopes,
            label,
            days,
        } => {
            known(&registry, tenant).await?;
            let key = mint_key(&registry, tenant, scopes.clone(), label, *days).await?;
            show_key(json, &key)?;
        }
        KeyCommand::List { tenant } => {
            known(&registry, tenant).await?;
            let now = now_millis();
            for key in registry.keys(tenant).await? {
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
                            "key": key.id, "tenant": key.tenant, "scopes": key.scopes, "label": key.label,
                            "created_millis": key.created_millis, "expires_millis": key.expires_millis, "state": state,
                        })
                    )?;
                } else {
                    out_line!("{}  {state:<8} {:<32} {}", key.id, scopes.join(","), key.label)?;
                }
            }
        }
        KeyCommand::Revoke { key } => {
            if !registry.revoke_key(key, now_millis()).await? {
                bail!("there is no key {key}: `weir key list TENANT` shows the 12 digits each begins with");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn known(registry: &dyn Registry, tenant: &TenantId) -> Result<Tenant> {
    match registry.tenant(tenant).await? {
        Some(record) => Ok(record),
        None => Err(unknown(tenant)),
    }
}

async fn set_state(places: &Places, tenant: &TenantId, state: TenantState) -> Result<()> {
    let registry = desk(places).await?;
    let update = TenantUpdate {
        state: Some(state),
        ..TenantUpdate::default()
    };
    change(&registry, tenant, &update).await
}

async fn change(registry: &dyn Registry, tenant: &TenantId, update: &TenantUpdate) -> Result<()> {
    match registry.change_tenant(tenant, update).await? {
        Some(_) => Ok(()),
        None => Err(unknown(tenant)),
    }
}

fn unknown(tenant: &TenantId) -> anyhow::Error {
    anyhow!("there is no tenant {tenant}: `weir tenant list` shows them")
}

fn set_quotas(quotas: &mut Quotas, given: &[(String, u64)]) -> Result<()> {
    for (name, value) in given {
        match quotas.by_name_mut(name) {
            Some(quota) => *quota = Some(*value),
            None => bail!(
                "there is no quota '{name}': there are {}",
                Quotas::NAMES.join(", ")
            ),
        }
    }
    Ok(())
}

async fn list(registry: &dyn Registry, json: bool) -> Result<()> {
    for tenant in registry.tenants().await? {
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

fn show_key(json: bool, key: &FreshKey) -> std::io::Result<()> {
    let record = &key.record;
    if json {
        out_line!(
            "{}",
            serde_json::json!({ "tenant": record.tenant, "key": record.id, "secret": key.text, "scopes": record.scopes })
        )
    } else {
        out_line!("key of tenant {}, shown this once: {}", record.tenant, key.text)
    }
}

pub(crate) fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
