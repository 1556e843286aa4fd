//! References of artifacts: `registry.example/team/router:1.2`, or with `@sha256:…` for an immutable reference.

use std::fmt;
use std::str::FromStr;

use weir_core::component::ComponentDigest;

/// A reference of an artifact in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArtifactReference {
    /// Host, with the port if there is one.
    pub(crate) registry: String,
    /// Names separated by `/`.
    pub(crate) repository: String,
    /// Mutable name of a version.
    pub(crate) tag: Option<String>,
    /// SHA-256 digest of the manifest.
    pub(crate) digest: Option<ComponentDigest>,
}

/// Prefix that distinguishes a reference from a file name.
pub(crate) const OCI_SCHEME: &str = "oci://";

impl ArtifactReference {
    /// Returns the reference with a digest, so that it always names the same artifact.
    pub(crate) fn with_digest(&self, digest: ComponentDigest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The last name in the repository.
    pub(crate) fn artifact_name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or_default()
    }

    /// Returns the digest, or else the tag, for the request of the manifest.
    pub(crate) fn digest_or_tag(&self) -> Option<String> {
        self.digest
            .map(|digest| digest.to_string())
            .or_else(|| self.tag.clone())
    }
}

impl fmt::Display for ArtifactReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for ArtifactReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            let short: String = text.chars().take(200).collect();
            format!("'{short}' is not a valid reference: {what}")
        };
        let whole = text.strip_prefix(OCI_SCHEME).unwrap_or(text);
        let (named, digest) = match whole.split_once('@') {
            Some((named, digest)) if digest.starts_with("sha256:") => {
                let digest: ComponentDigest = digest
                    .parse()
                    .map_err(|_| wrong("after '@' there are sha256: and 64 hexadecimal digits"))?;
                (named, Some(digest))
            }
            Some(_) => return Err(wrong("after '@' there are sha256: and 64 hexadecimal digits")),
            None => (whole, None),
        };
        let (registry, path) = named
            .split_once('/')
            .ok_or_else(|| wrong("the format is host/name:tag or host/name@sha256:…"))?;
        if !is_registry_host(registry) {
            return Err(wrong(
                "it must start with the registry's host and '/', as in registry.example/team/router:1.2",
            ));
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if repository.len() > 255 || !repository.split('/').all(is_repository_segment) {
            return Err(wrong(
                "the repository has names separated by '/', and a name has a-z and 0-9 with '.', '-' and '_' in between",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(
                "a tag has 1 to 128 letters, digits, '.', '-' and '_', and does not start with '.' or '-'",
            ));
        }
        Ok(Self {
            registry: registry.to_ascii_lowercase(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

/// Whether a text is a host. To distinguish it from a name, it needs a dot or a port, or must be `localhost`.
fn is_registry_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return false;
    }
    if let Some(six) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return six.parse::<std::net::Ipv6Addr>().is_ok();
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253
        && host.split('.').all(label)
        && (host.contains('.') || port.is_some() || host == "localhost")
}

fn is_repository_segment(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(inner) && text.ends_with(inner) && text.chars().all(|c| inner(c) || "._-".contains(c))
}

fn is_tag(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128 && text.starts_with(plain) && text.chars().all(|c| plain(c) || c == '.' || c == '-')
}
