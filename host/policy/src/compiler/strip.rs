//! Leaves out a component's debug information where there is too much of it.
//!
//! What is compiled with it names files and lines in a trap's backtrace, for which it is looked through in the host's own
//! process, at each trap, once for each function in the backtrace. The time for that grows with its size and is what its
//! author makes of it, so the size has a limit. Names of functions are in a section of their own and stay.

use std::borrow::Cow;

use wasm_encoder::{ComponentSectionId, Encode as _, RawSection, Section as _};
use wasmparser::{Encoding, Parser, Payload};

/// Bytes of debug information that are kept. Of a component of ours with line tables, standard library included, they are
/// some hundred thousand.
const KEPT: usize = 1 << 20;

/// The component without debug information if it has more than is kept. What cannot be read is left to the compiler, which
/// says why.
pub(super) fn stripped(component: &[u8]) -> Cow<'_, [u8]> {
    match debug_bytes(component) {
        Ok(bytes) if bytes > KEPT => without(component).map_or(Cow::Borrowed(component), Cow::Owned),
        Ok(_) | Err(_) => Cow::Borrowed(component),
    }
}

fn is_debug(name: &str) -> bool {
    name.starts_with(".debug_")
}

fn debug_bytes(component: &[u8]) -> wasmparser::Result<usize> {
    let mut bytes = 0;
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload?
            && is_debug(section.name())
        {
            bytes += section.data().len();
        }
    }
    Ok(bytes)
}

/// Copies all sections but those, from the innermost module outwards, since the length of a module stands in front of it.
/// `None` for what is no component.
fn without(component: &[u8]) -> Option<Vec<u8>> {
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
            Payload::CustomSection(section) if is_debug(section.name()) => continue,
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

    fn custom(name: &str, bytes: usize) -> Vec<u8> {
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
    fn more_than_is_kept_is_left_out_of_every_module() {
        let large = custom(".debug_info", KEPT);
        let plain = stripped(&large);
        assert!(plain.len() < 1000, "{}", plain.len());
        assert_eq!(debug_bytes(&plain).unwrap(), 0);
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
    fn what_is_small_or_no_debug_information_or_no_component_stays() {
        for component in [
            custom(".debug_info", KEPT / 2),
            custom("producers", KEPT),
            b"not a component".to_vec(),
            custom(".debug_line", KEPT)[..KEPT].to_vec(),
        ] {
            assert_eq!(stripped(&component), component);
        }
    }
}
