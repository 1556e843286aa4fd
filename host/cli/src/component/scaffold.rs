//! `weir component new`: a folder with a component that builds and a test that passes.
//!
//! Every role has a small rule of its own, the same in each language, so that the cases which come with it are the same too. A
//! component of several roles is put together from theirs: a template is a list of parts, and those of the roles are
//! joined before they are set into the frame.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use weir_core::manifest::Role;

use super::args::New;
use super::embedded;
use super::language::Language;
use crate::terminal::out_line;

/// A frame with the rules of the roles.
struct Template {
    /// Files, by name, with `{{…}}` where the component's own goes.
    frame: &'static [(&'static str, &'static str)],
    batching: &'static str,
    routing: &'static str,
    chunking: &'static str,
    progress: &'static str,
    /// Names of the parts of a role, in their order.
    parts: &'static [&'static str],
}

macro_rules! template {
    ($folder:literal, $ending:literal, parts: $parts:expr, files: $($name:literal from $file:literal),+ $(,)?) => {
        Template {
            frame: &[
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

const RUST: Template = template!("rust", "rs",
    parts: &["imports", "fields", "made", "methods"],
    files: "Cargo.toml" from "component.toml", "src/lib.rs" from "lib.rs");
const JS: Template = template!("js", "js",
    parts: &["fields", "methods"],
    files: "policy.js" from "policy.js", "package.json" from "package.json");
const PYTHON: Template = template!("python", "py",
    parts: &["imports", "made", "methods"],
    files: "policy.py" from "policy.py", "pyrightconfig.json" from "pyrightconfig.json");

/// What stands between the parts of a role.
const CUT: &str = "\n====\n";

/// The cases that come with a role.
const fn cases(role: Role) -> &'static [(&'static str, &'static str)] {
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

/// Makes the folder.
pub(crate) fn run(new: &New, json: bool) -> Result<ExitCode> {
    let folder = Path::new(&new.name);
    make(folder, new)?;
    if json {
        out_line!(
            "{}",
            serde_json::json!({ "folder": folder, "files": files(new).iter().map(|f| &f.0).collect::<Vec<_>>() })
        )?;
    } else {
        let entry = if new.lang == Language::Rust {
            "src/lib.rs"
        } else {
            new.lang.entry()
        };
        out_line!(
            "{name}/ is a component in {entry}; its README says how to go on:\n  weir component build {name}\n  \
             weir component test {name}\n  weir run FILE.pdf --pipeline {name}/pipeline.toml",
            name = new.name
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn make(folder: &Path, new: &New) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        bail!(
            "{} is already there: choose another name, or remove it",
            folder.display()
        );
    }
    for (name, text) in files(new) {
        let path = folder.join(name);
        embedded::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The files of a component, in no order.
fn files(new: &New) -> Vec<(&'static str, String)> {
    let template = match new.lang {
        Language::Rust => RUST,
        Language::Js => JS,
        Language::Python => PYTHON,
    };
    let roles: Vec<Role> = Role::ALL
        .into_iter()
        .filter(|role| new.roles.contains(role))
        .collect();
    let rules: Vec<Vec<&str>> = roles.iter().map(|role| template.rule(*role)).collect();
    let list = |each: &dyn Fn(Role) -> String, between: &str| {
        roles
            .iter()
            .map(|role| each(*role))
            .collect::<Vec<_>>()
            .join(between)
    };
    let mut words = vec![
        ("name", new.name.clone()),
        ("roles", list(&|role| role.name().into(), ", ")),
        ("Roles", list(&capital, ", ")),
        (
            "entry",
            if new.lang == Language::Rust {
                "src/lib.rs".into()
            } else {
                new.lang.entry().into()
            },
        ),
        (
            "components",
            list(&|role| format!("{} = \"{}.wasm\"", role.name(), new.name), "\n"),
        ),
        (
            "bound",
            list(&|role| format!("{0} = roles.{0}", capital(role)), "\n"),
        ),
        ("cases", list(&|role| format!("`{}`", case_name(role)), ", ")),
    ];
    let helpers = ["log", "offsets", "policy", "settings"];
    let used = |name: &&str| {
        let called = |rule: &&str| rule.contains(&format!("{name}.")) || rule.contains(&format!("{name}("));
        *name == "policy" || rules.iter().flatten().any(called)
    };
    words.push((
        "helpers",
        helpers
            .into_iter()
            .filter(|name| used(name))
            .collect::<Vec<_>>()
            .join(", "),
    ));
    for (i, part) in template.parts.iter().enumerate() {
        let of_roles: Vec<&str> = rules.iter().filter_map(|rule| rule.get(i).copied()).collect();
        let between = if *part == "methods" { "\n\n" } else { "\n" };
        words.push((part, of_roles.join(between)));
    }
    let frame = template
        .frame
        .iter()
        .map(|(name, text)| (*name, fill(text, &words)));
    let cases = roles
        .iter()
        .flat_map(|role| cases(*role))
        .map(|(name, text)| (*name, (*text).to_owned()));
    frame.chain(cases).collect()
}

impl Template {
    /// The parts of a role's rule.
    fn rule(&self, role: Role) -> Vec<&'static str> {
        let text = match role {
            Role::Batching => self.batching,
            Role::Routing => self.routing,
            Role::Chunking => self.chunking,
            Role::Progress => self.progress,
        };
        text.trim_end().split(CUT).collect()
    }
}

fn fill(text: &str, words: &[(&str, String)]) -> String {
    words.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(&format!("{{{{{word}}}}}"), value)
    })
}

fn capital(role: Role) -> String {
    let mut letters = role.name().chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(letters)
        .collect()
}

fn case_name(role: Role) -> String {
    let path = cases(role).first().map_or("", |(path, _)| path);
    path.split('/').nth(1).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::case::{Case, Expected};
    use crate::component::source::Source;

    fn new(lang: Language, roles: &[Role]) -> New {
        New {
            name: "ours".into(),
            lang,
            roles: roles.to_vec(),
        }
    }

    #[test]
    fn a_new_folder_is_whole_in_every_language() {
        for lang in Language::ALL {
            for roles in [&[Role::Routing][..], &Role::ALL] {
                let parent = tempfile::tempdir().unwrap();
                let folder = parent.path().join("ours");
                make(&folder, &new(lang, roles)).unwrap();
                let source = Source::open(&folder).unwrap();
                assert_eq!(source.language, lang);
                assert_eq!(source.roles().collect::<Vec<_>>(), roles);
                let cases = Case::all(&folder.join("cases")).unwrap();
                assert_eq!(cases.len(), roles.len());
                assert!(
                    cases
                        .iter()
                        .all(|case| matches!(case.expected, Expected::Decision(_)))
                );
                for (name, text) in files(&new(lang, roles)) {
                    assert!(!text.contains("{{") && !text.contains("===="), "{name}: {text}");
                }
            }
        }
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let error = make(folder.path(), &new(Language::Js, &[Role::Routing])).unwrap_err();
        assert!(error.to_string().contains("already there"), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
