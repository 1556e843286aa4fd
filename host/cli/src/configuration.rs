//! Settings from the file, the environment and the command line, in that order.

use anyhow::{Context as _, Result};
use weir_core::settings::{DECLARATIONS, Declaration, PROVIDER_DECLARATIONS, Settings};

use crate::args::Shared;
use crate::terminal::out_line;

/// The settings in force.
pub(crate) fn load(shared: &Shared) -> Result<Settings> {
    let mut settings = Settings::default();
    let usual = std::path::Path::new("weir.toml");
    if let Some(file) = shared
        .config
        .as_deref()
        .or_else(|| usual.exists().then_some(usual))
    {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        settings.merge_toml(&file.display().to_string(), &text)?;
    }
    settings.merge_env(
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
    )?;
    for (name, value) in &shared.set {
        settings.set(name, value)?;
    }
    Ok(settings)
}

/// A setting as it is listed.
struct Row {
    name: String,
    /// None for a key of a provider that nobody has named.
    value: Option<String>,
    variable: String,
    declaration: &'static Declaration,
}

/// Every setting; and the keys of a provider of language models, as those of `NAME` and of each that is set up.
fn rows(settings: &Settings) -> Vec<Row> {
    let plain = DECLARATIONS.iter().map(|declaration| Row {
        name: declaration.name.into(),
        value: Some(settings.get(declaration.name).unwrap_or_default()),
        variable: declaration.variable(),
        declaration,
    });
    let named = settings
        .llm_providers
        .iter()
        .map(|provider| (provider.name.as_str(), Some(provider)));
    let providers = std::iter::once(("NAME", None)).chain(named);
    let keys = providers.flat_map(|(name, provider)| {
        let keys = PROVIDER_DECLARATIONS
            .iter()
            .filter_map(|d| Some((d, d.name.strip_prefix("llm.provider.")?)));
        let keys = keys.filter(|(_, key)| *key != "name");
        keys.map(move |(declaration, key)| Row {
            name: format!("llm.provider.{name}.{key}"),
            value: provider.map(|provider| provider.get(declaration.name).unwrap_or_default()),
            variable: format!("WEIR_LLM_PROVIDER_{name}_{key}")
                .to_uppercase()
                .replace('-', "_"),
            declaration,
        })
    });
    plain.chain(keys).collect()
}

/// `weir settings`.
pub(crate) fn list(settings: &Settings, json: bool) -> Result<()> {
    let rows = rows(settings);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let d = row.declaration;
                serde_json::json!({
                    "name": row.name, "value": row.value, "default": d.default, "range": d.range,
                    "variable": row.variable, "doc": d.doc.trim(),
                })
            })
            .collect();
        out_line!("{}", serde_json::json!({ "settings": rows }))?;
        return Ok(());
    }
    for row in rows {
        let d = row.declaration;
        match row.value.as_deref() {
            None => out_line!("{}", row.name)?,
            Some("") => out_line!("{} = (unset)", row.name)?,
            Some(value) => out_line!("{} = {value}", row.name)?,
        }
        out_line!("    {}", d.doc.trim())?;
        out_line!(
            "    {}; default {}; {}",
            d.range,
            if d.default.is_empty() { "unset" } else { d.default },
            row.variable
        )?;
    }
    Ok(())
}
