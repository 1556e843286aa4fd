//! Removes a component's debug information if there is too much of it.
//!
//! Debug information gives the backtrace of a trap its file names and lines. The host searches it at each trap, once for each
//! function in the backtrace. The time of a search grows with the size of the debug information, which the author of the
//! component controls, so the size has a limit. Function names are in a separate section and stay.

use std::borrow::Cow;

use wasm_encoder::{ComponentSectionId, Encode as _, RawSection, Section as _};
use wasmparser::{Encoding, Parser, Payload};

/// Bytes of debug information that are kept. Weir's own components have some hundred thousand, with the line tables of the
/// standard library.
const MAX_DEBUG_BYTES: usize = 1 << 20;

/// Returns the component, without debug information if it has more than the limit. An unreadable component is returned
/// unchanged; the compiler then reports the error.
pub(super) fn strip_large_debug_info(component: &[u8]) -> Cow<'_, [u8]> {
    match count_debug_bytes(component) {
        Ok(bytes) if bytes > MAX_DEBUG_BYTES => {
            remove_debug_sections(component).map_or(Cow::Borrowed(component), Cow::Owned)
        }
        Ok(_) | Err(_) => Cow::Borrowed(component),
    }
}

fn is_debug_section(name: &str) -> bool {
    name.starts_with(".debug_")
}

fn count_debug_bytes(component: &[u8]) -> wasmparser::Result<usize> {
    let mut bytes = 0;
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload?
            && is_debug_section(section.name())
        {
            bytes += section.data().len();
        }
    }
    Ok(bytes)
}

/// Copies all sections except debug sections. Works from the innermost module outward, because a module is preceded by its
/// length. `None` if the bytes are not a component.
fn remove_debug_sections(component: &[u8]) -> Option<Vec<u8>> {
    let mut outer: Vec<Vec<u8>> = Vec::new();
    let mut copy = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.ok()?;
        match &payload {
            Payload::Version { encoding, .. } => copy.extend_from_slice(match encoding {
                Encoding::Component => &wasm_encoder::Component::HEADER,
                Encoding::Module => &wasm_encoder::Module::HEADER,
            }),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                outer.push(std::mem::take(&mut copy));
                continue;
            }
            Payload::End(_) => {
                let Some(mut parent) = outer.pop() else { break };
                let id = match copy.starts_with(&wasm_encoder::Component::HEADER) {
                    true => ComponentSectionId::Component,
                    false => ComponentSectionId::CoreModule,
                };
                parent.push(id as u8);
                copy.encode(&mut parent);
                copy = parent;
                continue;
            }
            Payload::CustomSection(section) if is_debug_section(section.name()) => continue,
            _ => {}
        }
        if let Some((id, range)) = payload.as_section() {
            let data = component.get(range)?;
            RawSection { id, data }.append_to(&mut copy);
        }
    }
    Some(copy)
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{Component, CustomSection, Module, ModuleSection};

    use super::*;

    fn component_with_custom_section(name: &str, bytes: usize) -> Vec<u8> {
        let section = CustomSection {
            name: name.into(),
            data: vec![7; bytes].into(),
        };
        let mut module = Module::new();
        module.section(&section);
        module.section(&CustomSection {
            name: "name".into(),
            data: Cow::Borrowed(&[]),
        });
        let mut inner = Component::new();
        inner.section(&ModuleSection(&module));
        let mut outer = Component::new();
        outer.section(&wasm_encoder::NestedComponentSection(&inner));
        outer.section(&ModuleSection(&module));
        outer.finish()
    }

    #[test]
    fn large_debug_info_is_removed_from_every_module() {
        let large = component_with_custom_section(".debug_info", MAX_DEBUG_BYTES);
        let plain = strip_large_debug_info(&large);
        assert!(plain.len() < 1000, "{}", plain.len());
        assert_eq!(count_debug_bytes(&plain).unwrap(), 0);
        wasmparser::validate(&plain).unwrap();
        let sections = |bytes: &[u8]| {
            let payloads = Parser::new(0).parse_all(bytes);
            payloads
                .filter(|p| matches!(p.as_ref().unwrap(), Payload::CustomSection(_)))
                .count()
        };
        assert_eq!((sections(&large), sections(&plain)), (4, 2));
    }

    #[test]
    fn small_or_unreadable_components_are_unchanged() {
        for component in [
            component_with_custom_section(".debug_info", MAX_DEBUG_BYTES / 2),
            component_with_custom_section("producers", MAX_DEBUG_BYTES),
            b"not a component".to_vec(),
            component_with_custom_section(".debug_line", MAX_DEBUG_BYTES)[..MAX_DEBUG_BYTES].to_vec(),
        ] {
            assert_eq!(strip_large_debug_info(&component), component);
        }
    }
}
