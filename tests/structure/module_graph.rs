//! The import graph of a crate's files, read from its `mod` and `use` items and its paths.
//!
//! The source is read as tokens; a parser of Rust as a dependency would change the features of the procedural macros' build.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

type ModulePath = Vec<String>;

/// The modules of a crate that have files of their own, without tests.
pub(crate) struct CrateModules {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Paths in the code of the module, as written.
    paths: Vec<Vec<String>>,
    imports: Vec<Import>,
    /// Identifiers in the code of the module outside `use` items.
    identifiers: BTreeSet<String>,
}

/// A name that a `use` item brings in.
struct Import {
    name: String,
    path: Vec<String>,
    is_reexport: bool,
}

impl CrateModules {
    /// Reads the crate whose root is the file `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        let folder = root.parent().expect("a crate root is in a folder");
        read_module(root, folder, &[], &mut modules);
        Self { modules }
    }

    /// Returns the groups of files that use each other in a cycle.
    pub(crate) fn import_cycles(&self) -> Vec<Vec<String>> {
        let edges: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = self
            .modules
            .keys()
            .map(|module| (module, self.dependencies(module)))
            .collect();
        let reachable = |from: &ModulePath| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<_> = edges[from].iter().copied().collect();
            while let Some(module) = next.pop() {
                if seen.insert(module) {
                    next.extend(edges[module].iter().copied());
                }
            }
            seen
        };
        let reached: BTreeMap<_, _> = edges.keys().map(|module| (*module, reachable(module))).collect();
        let is_in_cycle = |module: &ModulePath, other: &ModulePath| {
            reached[module].contains(other) && reached[other].contains(module)
        };
        let mut cycles = BTreeSet::new();
        for module in edges.keys().filter(|module| is_in_cycle(module, module)) {
            let members = reached[module].iter().filter(|other| is_in_cycle(module, other));
            let cycle: Vec<_> = members
                .map(|member| {
                    let used: Vec<_> = edges[*member]
                        .iter()
                        .filter(|used| is_in_cycle(module, used))
                        .map(|used| used.join("::"))
                        .collect();
                    format!(
                        "{} uses {}",
                        self.modules[*member].file.display(),
                        used.join(", ")
                    )
                })
                .collect();
            cycles.insert(cycle);
        }
        cycles.into_iter().collect()
    }

    /// Returns the modules whose items the code of `module` names.
    fn dependencies(&self, module: &ModulePath) -> BTreeSet<&ModulePath> {
        let Module {
            paths,
            imports,
            identifiers,
            ..
        } = &self.modules[module];
        // A re-export that a module does not use itself makes it no user of the item.
        let used = imports
            .iter()
            .filter(|import| !import.is_reexport || identifiers.contains(&import.name));
        let mut found: BTreeSet<_> = paths
            .iter()
            .chain(used.map(|import| &import.path))
            .filter_map(|path| self.resolve_item_module(module, path, 0))
            .collect();
        found.remove(module);
        found
    }

    /// Returns the module that defines the item at a path written in `from`. Follows re-exports.
    fn resolve_item_module(&self, from: &ModulePath, path: &[String], depth: usize) -> Option<&ModulePath> {
        let (first, tail) = path.split_first()?;
        let mut at = from.clone();
        let mut rest = path;
        match first.as_str() {
            "crate" => {
                at.clear();
                rest = tail;
            }
            "self" => rest = tail,
            "super" => {
                while let Some((segment, tail)) = rest.split_first()
                    && segment == "super"
                {
                    at.pop()?;
                    rest = tail;
                }
            }
            name => {
                let mut child = at.clone();
                child.push(name.to_owned());
                if !self.modules.contains_key(&child) {
                    return None;
                }
            }
        }
        while let Some((segment, tail)) = rest.split_first() {
            let mut child = at.clone();
            child.push(segment.clone());
            if self.modules.contains_key(&child) {
                at = child;
                rest = tail;
                continue;
            }
            let import = self
                .modules
                .get(&at)?
                .imports
                .iter()
                .find(|import| import.name == *segment);
            if let Some(import) = import
                && depth < 8
            {
                let target = [&import.path, tail].concat();
                if let Some(module) = self.resolve_item_module(&at, &target, depth + 1) {
                    return Some(module);
                }
            }
            break;
        }
        self.modules.get_key_value(&at).map(|(module, _)| module)
    }
}

fn read_module(file: &Path, children: &Path, path: &[String], modules: &mut BTreeMap<ModulePath, Module>) {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let tokens: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut module = Module {
        file: file.to_path_buf(),
        ..Module::default()
    };
    let mut child_modules = Vec::new();
    collect_module_items(tokens.into_iter().collect(), &mut module, &mut child_modules);
    for name in child_modules {
        let flat = children.join(format!("{name}.rs"));
        let nested = children.join(&name).join("mod.rs");
        let file = if flat.exists() { flat } else { nested };
        let path = [path, std::slice::from_ref(&name)].concat();
        read_module(&file, &children.join(&name), &path, modules);
    }
    modules.insert(path.to_vec(), module);
}

fn is_ident(token: Option<&TokenTree>, name: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == name)
}

fn is_punct(token: Option<&TokenTree>, character: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == character)
}

/// Returns whether an attribute group is `[cfg(test …)]`.
fn is_cfg_test(token: &TokenTree) -> bool {
    let TokenTree::Group(group) = token else {
        return false;
    };
    let inner: Vec<_> = group.stream().into_iter().collect();
    let Some(TokenTree::Group(condition)) = inner.get(1) else {
        return false;
    };
    is_ident(inner.first(), "cfg") && is_ident(condition.stream().into_iter().next().as_ref(), "test")
}

/// Collects imports, paths, identifiers and the names of child modules from tokens.
fn collect_module_items(tokens: Vec<TokenTree>, module: &mut Module, child_modules: &mut Vec<String>) {
    let mut at = 0;
    let mut is_public = false;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if tokens.get(at + 1).is_some_and(is_cfg_test) {
                    at = index_after_item(&tokens, at + 2);
                    continue;
                }
                at += 1;
            }
            TokenTree::Ident(ident) if ident == "pub" => {
                is_public = true;
                at += 1;
                if matches!(tokens.get(at), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
                {
                    at += 1;
                }
                continue;
            }
            TokenTree::Ident(ident) if ident == "use" => {
                let end = (at..tokens.len())
                    .find(|index| is_punct(tokens.get(*index), ';'))
                    .unwrap_or(tokens.len());
                collect_imports(
                    &tokens[at + 1..end],
                    &mut Vec::new(),
                    is_public,
                    &mut module.imports,
                );
                at = end + 1;
            }
            TokenTree::Ident(ident) if ident == "mod" && is_punct(tokens.get(at + 2), ';') => {
                child_modules.push(tokens[at + 1].to_string());
                at += 3;
            }
            TokenTree::Ident(ident) => {
                let mut path = vec![ident.to_string()];
                at += 1;
                while is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':') {
                    let Some(TokenTree::Ident(segment)) = tokens.get(at + 2) else {
                        break;
                    };
                    path.push(segment.to_string());
                    at += 3;
                }
                module.identifiers.insert(path[0].clone());
                if path.len() > 1 {
                    module.paths.push(path);
                }
            }
            TokenTree::Group(group) => {
                collect_module_items(group.stream().into_iter().collect(), module, child_modules);
                at += 1;
            }
            _ => at += 1,
        }
        is_public = false;
    }
}

/// Returns the index behind the item that starts at `at`: behind its `;` or its braces.
fn index_after_item(tokens: &[TokenTree], at: usize) -> usize {
    let end = tokens.iter().skip(at).position(|token| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    });
    end.map_or(tokens.len(), |length| at + length + 1)
}

/// Adds the names of a `use` tree.
fn collect_imports(
    tokens: &[TokenTree],
    prefix: &mut Vec<String>,
    is_reexport: bool,
    imports: &mut Vec<Import>,
) {
    for tree in tokens.split(|token| is_punct(Some(token), ',')) {
        let depth = prefix.len();
        let mut alias = None;
        let mut group = None;
        let mut tokens = tree.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(ident) if ident == "as" => alias = tokens.next().map(ToString::to_string),
                TokenTree::Ident(ident) => prefix.push(ident.to_string()),
                TokenTree::Group(inner) => group = Some(inner.stream().into_iter().collect::<Vec<_>>()),
                _ => {}
            }
        }
        if let Some(group) = group {
            collect_imports(&group, prefix, is_reexport, imports);
        } else if prefix.len() > depth || !tree.is_empty() {
            let mut path = prefix.clone();
            if path.last().is_some_and(|last| last == "self") && path.len() > 1 {
                path.pop();
            }
            let name = alias.or_else(|| path.last().cloned()).unwrap_or_default();
            imports.push(Import {
                name,
                path,
                is_reexport,
            });
        }
        prefix.truncate(depth);
    }
}
