//! `weir component new`: creates a folder with the source of a component and test cases that pass.
//!
//! Each role has a small example implementation that decides the same in every language, so that the example test cases are the
//! same, too. A role's template is a list of parts, such as imports and methods. For a component with several roles, the parts of
//! the roles are joined and inserted into the files of the language.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use weir_core::manifest::Role;

use super::args::NewArgs;
use super::component_source::Language;
use super::embedded_wit_and_sdk_files;
use crate::terminal::out_line;

/// The templates of one language.
struct LanguageTemplate {
    /// Files by name, with placeholders in `{{…}}`.
    frame_files: &'static [(&'static str, &'static str)],
    batching: &'static str,
    routing: &'static str,
    chunking: &'static str,
    progress: &'static str,
    /// Names of the parts in a role's template, in their order.
    parts: &'static [&'static str],
}

macro_rules! template {
    ($folder:literal, $ending:literal, parts: $parts:expr, files: $($name:literal from $file:literal),+ $(,)?) => {
        LanguageTemplate {
            frame_files: &[
                $(($name, include_str!(concat!("templates/", $folder, "/", $file)))),+,
                ("pipeline.toml", include_str!("templates/pipeline.toml")),
                ("README.md", include_str!("templates/README.md")),
                (".gitignore", include_str!("templates/gitignore")),
            ],
            batching: include_str!(concat!("templates/", $folder, "/batching.", $ending)),
            routing: include_str!(concat!("templates/", $folder, "/routing.", $ending)),
            chunking: include_str!(concat!("templates/", $folder, "/chunking.", $ending)),
            progress: include_str!(concat!("templates/", $folder, "/progress.", $ending)),
            parts: $parts,
        }
    };
}

const RUST_TEMPLATE: LanguageTemplate = template!("rust", "rs",
    parts: &["imports", "fields", "initializers", "methods"],
    files: "Cargo.toml" from "component.toml", "src/lib.rs" from "lib.rs");
const JS_TEMPLATE: LanguageTemplate = template!("js", "js",
    parts: &["fields", "methods"],
    files: "policy.js" from "policy.js", "package.json" from "package.json");
const PYTHON_TEMPLATE: LanguageTemplate = template!("python", "py",
    parts: &["imports", "initializers", "methods"],
    files: "policy.py" from "policy.py", "pyrightconfig.json" from "pyrightconfig.json");

/// Separator of the parts in a role's template.
const PART_SEPARATOR: &str = "\n====\n";

/// Returns the example test cases of a role, as file names and texts.
const fn example_test_case_files(role: Role) -> &'static [(&'static str, &'static str)] {
    macro_rules! case {
        ($name:literal: $($file:literal),+) => {
            &[$((
                concat!("cases/", $name, "/", $file),
                include_str!(concat!("templates/cases/", $name, "/", $file)),
            )),+]
        };
    }
    match role {
        Role::Batching => case!("last-batch": "call.json", "decision.json"),
        Role::Routing => case!("scanned-page": "call.json", "decision.json"),
        Role::Chunking => case!("two-passages": "call.json", "decision.json", "settings.json"),
        Role::Progress => case!("half-done": "call.json", "decision.json"),
    }
}

/// Creates the folder and prints the next steps.
pub(crate) fn run(new: &NewArgs, json: bool) -> Result<ExitCode> {
    let folder = Path::new(&new.name);
    create_component_folder(folder, new)?;
    if json {
        out_line!(
            "{}",
            serde_json::json!({ "folder": folder, "files": render_files(new).iter().map(|f| &f.0).collect::<Vec<_>>() })
        )?;
    } else {
        let entry = if new.lang == Language::Rust {
            "src/lib.rs"
        } else {
            new.lang.marker_file_name()
        };
        out_line!(
            "created {name}/ with a component in {entry}; next steps, also in its README:\n  weir component build {name}\n  \
             weir component test {name}\n  weir run FILE.pdf --pipeline {name}/pipeline.toml",
            name = new.name
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn create_component_folder(folder: &Path, new: &NewArgs) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        bail!(
            "{} is already there: use another name or remove it",
            folder.display()
        );
    }
    for (name, text) in render_files(new) {
        let path = folder.join(name);
        embedded_wit_and_sdk_files::write_if_changed(&path, &text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Renders the files of a component. Returns their names and texts: first the files of the template, then the test cases.
fn render_files(new: &NewArgs) -> Vec<(&'static str, String)> {
    let template = match new.lang {
        Language::Rust => RUST_TEMPLATE,
        Language::Js => JS_TEMPLATE,
        Language::Python => PYTHON_TEMPLATE,
    };
    let roles: Vec<Role> = Role::ALL
        .into_iter()
        .filter(|role| new.roles.contains(role))
        .collect();
    let role_parts: Vec<Vec<&str>> = roles
        .iter()
        .map(|role| template.role_template_parts(*role))
        .collect();
    let list = |each: &dyn Fn(Role) -> String, between: &str| {
        roles
            .iter()
            .map(|role| each(*role))
            .collect::<Vec<_>>()
            .join(between)
    };
    let mut placeholders = vec![
        ("name", new.name.clone()),
        ("roles", list(&|role| role.name().into(), ", ")),
        ("Roles", list(&capitalize_role, ", ")),
        (
            "entry",
            if new.lang == Language::Rust {
                "src/lib.rs".into()
            } else {
                new.lang.marker_file_name().into()
            },
        ),
        (
            "components",
            list(&|role| format!("{} = \"{}.wasm\"", role.name(), new.name), "\n"),
        ),
        (
            "role_bindings",
            list(&|role| format!("{0} = roles.{0}", capitalize_role(role)), "\n"),
        ),
        (
            "cases",
            list(&|role| format!("`{}`", example_case_folder_name(role)), ", "),
        ),
    ];
    let helpers = ["log", "offsets", "policy", "settings"];
    let used = |name: &&str| {
        let called = |rule: &&str| rule.contains(&format!("{name}.")) || rule.contains(&format!("{name}("));
        *name == "policy" || role_parts.iter().flatten().any(called)
    };
    placeholders.push((
        "helpers",
        helpers
            .into_iter()
            .filter(|name| used(name))
            .collect::<Vec<_>>()
            .join(", "),
    ));
    for (i, part) in template.parts.iter().enumerate() {
        let role_texts: Vec<&str> = role_parts
            .iter()
            .filter_map(|rule| rule.get(i).copied())
            .collect();
        let between = if *part == "methods" { "\n\n" } else { "\n" };
        placeholders.push((part, role_texts.join(between)));
    }
    let frame = template
        .frame_files
        .iter()
        .map(|(name, text)| (*name, fill_placeholders(text, &placeholders)));
    let cases = roles
        .iter()
        .flat_map(|role| example_test_case_files(*role))
        .map(|(name, text)| (*name, (*text).to_owned()));
    frame.chain(cases).collect()
}

impl LanguageTemplate {
    /// Returns the parts of a role's template.
    fn role_template_parts(&self, role: Role) -> Vec<&'static str> {
        let text = match role {
            Role::Batching => self.batching,
            Role::Routing => self.routing,
            Role::Chunking => self.chunking,
            Role::Progress => self.progress,
        };
        text.trim_end().split(PART_SEPARATOR).collect()
    }
}

fn fill_placeholders(text: &str, placeholders: &[(&str, String)]) -> String {
    placeholders.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(&format!("{{{{{word}}}}}"), value)
    })
}

fn capitalize_role(role: Role) -> String {
    let mut letters = role.name().chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

fn example_case_folder_name(role: Role) -> String {
    let path = example_test_case_files(role).first().map_or("", |(path, _)| path);
    path.split('/').nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::component_source::ComponentSource;
    use crate::component::test_case::{Expectation, TestCase};

    fn new_args(lang: Language, roles: &[Role]) -> NewArgs {
        NewArgs {
            name: "ours".into(),
            lang,
            roles: roles.to_vec(),
        }
    }

    #[test]
    fn new_component_folder_is_complete_in_every_language() {
        for lang in Language::ALL {
            for roles in [&[Role::Routing][..], &Role::ALL] {
                let parent = tempfile::tempdir().unwrap();
                let folder = parent.path().join("ours");
                create_component_folder(&folder, &new_args(lang, roles)).unwrap();
                let source = ComponentSource::open(&folder).unwrap();
                assert_eq!(source.language, lang);
                assert_eq!(source.roles().collect::<Vec<_>>(), roles);
                let cases = TestCase::read_all(&folder.join("cases")).unwrap();
                assert_eq!(cases.len(), roles.len());
                assert!(
                    cases
                        .iter()
                        .all(|case| matches!(case.expectation, Expectation::Decision(_)))
                );
                for (name, text) in render_files(&new_args(lang, roles)) {
                    assert!(!text.contains("{{") && !text.contains("===="), "{name}: {text}");
                }
            }
        }
    }

    #[test]
    fn existing_folder_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            create_component_folder(folder.path(), &new_args(Language::Js, &[Role::Routing])).unwrap_err();
        assert!(error.to_string().contains("already there"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
