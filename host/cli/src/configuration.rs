//! Settings from the file, the environment and the command line, in that order.

use anyhow::{Context as _, Result};
use weir_core::settings::{DECLARATIONS, Settings};

use crate::args::Shared;

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

/// `weir settings`.
#[allow(clippy::print_stdout)]
pub(crate) fn list(settings: &Settings, json: bool) -> Result<()> {
    let value = |name: &str| settings.get(name).unwrap_or_default();
    if json {
        let rows: Vec<_> = DECLARATIONS
            .iter()
            .map(|d| {
                serde_json::json!({
                    "name": d.name, "value": value(d.name), "default": d.default, "range": d.range,
                    "variable": d.variable(), "doc": d.doc.trim(),
                })
            })
            .collect();
        println!("{}", serde_json::json!({ "settings": rows }));
        return Ok(());
    }
    for d in DECLARATIONS {
        let shown = value(d.name);
        let shown = if shown.is_empty() { "(unset)" } else { &shown };
        println!("{} = {shown}", d.name);
        println!("    {}", d.doc.trim());
        println!(
            "    {}; default {}; {}",
            d.range,
            if d.default.is_empty() { "unset" } else { d.default },
            d.variable()
        );
    }
    Ok(())
}
