//! Errors for names of settings that are not declared.

use super::renamed_settings;
use super::setting_type::{SettingDeclaration, SettingError};

/// Returns the error for a name that is not declared.
pub(super) fn unknown_setting_error(declarations: &'static [SettingDeclaration], name: &str) -> SettingError {
    match renamed_settings::current_setting_name(name) {
        Some(present) => SettingError::Renamed {
            name: name.to_owned(),
            present,
        },
        None => SettingError::UnknownSetting {
            name: name.to_owned(),
            hint: suggest_setting(declarations, name),
        },
    }
}

/// Returns the setting with the most similar name, or with the most similar key in any section.
fn suggest_setting(declarations: &'static [SettingDeclaration], name: &str) -> Option<&'static str> {
    /// Names that differ in a few letters, and a part of a name, are more similar than this.
    const MIN_SIMILARITY: f64 = 0.85;
    let scored = declarations.iter().map(|d| {
        let key = strsim::jaro_winkler(key_without_section(d.name), key_without_section(name));
        (strsim::jaro_winkler(d.name, name).max(key), d.name)
    });
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .map(|(_, name)| name)
}

fn key_without_section(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}
