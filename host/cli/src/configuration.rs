//! Loads the settings from the file, the environment and the command line, and prints them for `weir settings`.

use anyhow::{Context as _, Result};
use weir_core::settings::{DECLARATIONS, PROVIDER_DECLARATIONS, SettingDeclaration, Settings};

use crate::args::GlobalArgs;
use crate::terminal::out_line;

/// Loads the settings. The environment overrides the file, and `--set` overrides both.
pub(crate) fn load_settings(global_args: &GlobalArgs) -> Result<Settings> {
    let mut settings = Settings::default();
    let default_file = std::path::Path::new("weir.toml");
    if let Some(file) = global_args
        .config
        .as_deref()
        .or_else(|| default_file.exists().then_some(default_file))
    {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        settings.merge_toml(&file.display().to_string(), &text)?;
    }
    settings.merge_environment(
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))),
    )?;
    for (name, value) in &global_args.set {
        settings.set(name, value)?;
    }
    Ok(settings)
}

/// One setting in the output of `weir settings`.
struct SettingRow {
    name: String,
    /// `None` for the keys of the placeholder provider `NAME`.
    value: Option<String>,
    env_variable: String,
    declaration: &'static SettingDeclaration,
}

/// Returns all settings, including the keys of each configured language-model provider and of the placeholder `NAME`.
fn list_setting_rows(settings: &Settings) -> Vec<SettingRow> {
    let plain = DECLARATIONS.iter().map(|declaration| SettingRow {
        name: declaration.name.into(),
        value: Some(settings.get(declaration.name).unwrap_or_default()),
        env_variable: declaration.environment_variable(),
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
        keys.map(move |(declaration, key)| SettingRow {
            name: format!("llm.provider.{name}.{key}"),
            value: provider.map(|provider| provider.get(declaration.name).unwrap_or_default()),
            env_variable: format!("WEIR_LLM_PROVIDER_{name}_{key}")
                .to_uppercase()
                .replace('-', "_"),
            declaration,
        })
    });
    plain.chain(keys).collect()
}

/// Runs `weir settings`: prints the settings as text or JSON.
pub(crate) fn print_settings(settings: &Settings, json: bool) -> Result<()> {
    let rows = list_setting_rows(settings);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let d = row.declaration;
                serde_json::json!({
                    "name": row.name, "value": row.value, "default": d.default, "range": d.accepted_values,
                    "variable": row.env_variable, "doc": d.description.trim(),
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
        out_line!("    {}", d.description.trim())?;
        out_line!(
            "    {}; default {}; {}",
            d.accepted_values,
            if d.default.is_empty() { "unset" } else { d.default },
            row.env_variable
        )?;
    }
    Ok(())
}
