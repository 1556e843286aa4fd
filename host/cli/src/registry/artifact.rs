//! Components as OCI artifacts, in the layout of the CNCF TAG Runtime
//! (<https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/>) that other component tools use, too. An artifact has
//! one layer with the unchanged component, and a config with the component's imports and exports.

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use wasmparser::{Encoding, Parser, Payload};
use weir_core::component::ComponentDigest;

pub(super) const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_MEDIA_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_MEDIA_TYPE: &str = "application/wasm";
/// Maximum bytes of a component, as on a server.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;
/// Creation time of every artifact. A constant time gives the same artifact for the same component.
const CREATED_TIME: &str = "1970-01-01T00:00:00Z";

/// Type, digest and size of a part of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BlobDescriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactManifest {
    schema_version: u32,
    /// Optional: some tools leave it out.
    media_type: Option<String>,
    config: BlobDescriptor,
    layers: Vec<BlobDescriptor>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactConfig {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [String; 1],
    component: ComponentInterfaces,
}

#[derive(Debug, Default, Serialize)]
struct ComponentInterfaces {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// The manifest and the blobs of a component.
pub(super) struct ComponentArtifact {
    /// Digest and bytes of the config and the layer. They must be uploaded before the manifest.
    pub(super) blobs: [(ComponentDigest, Vec<u8>); 2],
    pub(super) manifest: Vec<u8>,
}

impl ComponentArtifact {
    /// Creates the artifact of a component. Fails if the bytes are not a component.
    pub(super) fn from_component(component: Vec<u8>) -> Result<Self> {
        let bytes = component.len() as u64;
        ensure!(
            bytes <= MAX_COMPONENT_BYTES,
            "the component has {bytes} bytes; a server accepts at most {MAX_COMPONENT_BYTES}"
        );
        let layer = ComponentDigest::from_content(&component);
        let config = serde_json::to_vec(&ArtifactConfig {
            created: CREATED_TIME,
            architecture: "wasm",
            os: "wasip2",
            layer_digests: [layer.to_string()],
            component: read_component_interfaces(&component)?,
        })?;
        let describe = |media_type: &str, bytes: &[u8]| BlobDescriptor {
            media_type: media_type.to_owned(),
            digest: ComponentDigest::from_content(bytes).to_string(),
            size: bytes.len() as u64,
        };
        let manifest = serde_json::to_vec(&ArtifactManifest {
            schema_version: 2,
            media_type: Some(MANIFEST_MEDIA_TYPE.to_owned()),
            config: describe(CONFIG_MEDIA_TYPE, &config),
            layers: vec![describe(LAYER_MEDIA_TYPE, &component)],
        })?;
        Ok(Self {
            blobs: [
                (ComponentDigest::from_content(&config), config),
                (layer, component),
            ],
            manifest,
        })
    }
}

/// Parses an artifact's manifest and returns digest and size of the layer with the component.
pub(super) fn find_component_layer_in_manifest(manifest: &[u8]) -> Result<(ComponentDigest, u64)> {
    let manifest: ArtifactManifest = serde_json::from_slice(manifest).context(
        "the manifest is not that of an OCI artifact; if it is an index, name one of its manifests by digest",
    )?;
    ensure!(
        manifest.schema_version == 2
            && manifest
                .media_type
                .is_none_or(|media_type| media_type == MANIFEST_MEDIA_TYPE),
        "the manifest is not that of an OCI artifact"
    );
    let [layer] = manifest.layers.as_slice() else {
        bail!(
            "it has {} layers; the artifact of a component has exactly one",
            manifest.layers.len()
        );
    };
    ensure!(
        layer.media_type == LAYER_MEDIA_TYPE,
        "its layer has the type {:?}; the layer of a component has the type {LAYER_MEDIA_TYPE}",
        layer.media_type
    );
    ensure!(
        layer.size <= MAX_COMPONENT_BYTES,
        "its component has {} bytes; a server accepts at most {MAX_COMPONENT_BYTES}",
        layer.size
    );
    ensure!(
        layer.digest.starts_with("sha256:"),
        "the digest of its layer is not a SHA-256 digest"
    );
    Ok((layer.digest.parse()?, layer.size))
}

/// Returns the names of a component's imports and exports.
fn read_component_interfaces(component: &[u8]) -> Result<ComponentInterfaces> {
    const NOT_A_COMPONENT: &str = "it is no component: `weir component build` makes one";
    let (mut found, mut depth) = (ComponentInterfaces::default(), 0_u32);
    for payload in Parser::new(0).parse_all(component) {
        match payload.context(NOT_A_COMPONENT)? {
            Payload::Version { encoding, .. } => {
                ensure!(depth > 0 || encoding == Encoding::Component, NOT_A_COMPONENT);
                depth += 1;
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            // Imports and exports of nested components are not part of the interface.
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
