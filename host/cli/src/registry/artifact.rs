//! A component as an OCI artifact, by the layout of the CNCF's TAG Runtime
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>), which other tools for components read and write, too:
//! one layer, the component as it is, and a config that says what it imports and exports.

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};
use weir_core::component::ComponentDigest;

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.wasm.config.v0+json";
const LAYER: &str = "application/wasm";
/// Bytes a component may have: as many as a server takes.
const MOST_BYTES: u64 = 64 << 20;
/// When every artifact was made. The same component is the same artifact then, whoever publishes it and when.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A part of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    /// Left out by some.
    media_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [String; 1],
    component: Interfaces,
}

#[derive(Debug, Default, Serialize)]
struct Interfaces {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// What is published of a component.
pub(super) struct Artifact {
    /// Digest and bytes of what the manifest names, to be there before it.
    pub(super) blobs: [(ComponentDigest, Vec<u8>); 2],
    pub(super) manifest: Vec<u8>,
}

impl Artifact {
    /// Of a component; a module or anything else is refused.
    pub(super) fn of(component: Vec<u8>) -> Result<Self> {
        let bytes = component.len() as u64;
        ensure!(
            bytes <= MOST_BYTES,
            "the component has {bytes} bytes, of which a server takes {MOST_BYTES} at most"
        );
        let layer = ComponentDigest::of(&component);
        let config = serde_json::to_vec(&Config {
            created: CREATED,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.to_string()],
            component: interfaces(&component)?,
        })?;
        let describe = |media_type: &str, bytes: &[u8]| Descriptor {
            media_type: media_type.to_owned(),
            digest: ComponentDigest::of(bytes).to_string(),
            size: bytes.len() as u64,
        };
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: Some(MANIFEST.to_owned()),
            config: describe(CONFIG, &config),
            layers: vec![describe(LAYER, &component)],
        })?;
        Ok(Self {
            blobs: [(ComponentDigest::of(&config), config), (layer, component)],
            manifest,
        })
    }
}

/// The layer that is the component, by an artifact's manifest.
pub(super) fn layer(manifest: &[u8]) -> Result<(ComponentDigest, u64)> {
    let manifest: Manifest = serde_json::from_slice(manifest)
        .context("it is no manifest of an image or artifact: is it an index of several? Name one of them by its digest")?;
    ensure!(
        manifest.schema_version == 2
            && manifest
                .media_type
                .is_none_or(|media_type| media_type == MANIFEST),
        "it is no manifest of an OCI image or artifact"
    );
    let [layer] = manifest.layers.as_slice() else {
        bail!("it has {} layers, and a component is one", manifest.layers.len());
    };
    ensure!(
        layer.media_type == LAYER,
        "its layer is {:?}, and a component is {LAYER}",
        layer.media_type
    );
    ensure!(
        layer.size <= MOST_BYTES,
        "it has {} bytes, of which a server takes {MOST_BYTES} at most",
        layer.size
    );
    ensure!(
        layer.digest.starts_with("sha256:"),
        "its layer is named by no SHA-256"
    );
    Ok((layer.digest.parse()?, layer.size))
}

/// Names of what a component imports and exports.
fn interfaces(component: &[u8]) -> Result<Interfaces> {
    const NONE: &str = "it is no component: `weir component build` makes one";
    let (mut found, mut depth) = (Interfaces::default(), 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        match payload.context(NONE)? {
            Payload::Version { encoding, .. } => {
                ensure!(depth > 0 || encoding == Encoding::Component, NONE);
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Those of what is nested are its own affair.
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    found.imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    found.exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}
