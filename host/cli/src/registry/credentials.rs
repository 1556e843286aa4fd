//! Finds the credentials for a registry in the environment, or in the files of `docker login` and `podman login`.
//!
//! The variable `WEIR_REGISTRY` names the registry of the password in the environment, so that the password is not sent to another
//! registry that a manifest names.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Maximum bytes of a configuration file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// A user and a password or access token. It has no `Debug`, so that it is never printed.
#[derive(Clone)]
pub(super) struct Credentials {
    user: String,
    secret: String,
}

impl Credentials {
    pub(super) fn new(user: String, secret: String) -> Result<Self> {
        // Docker uses this user for identity tokens, which need another protocol.
        ensure!(
            user != "<token>",
            "the login is an identity token, which is not supported: log in with a user and an access token"
        );
        Ok(Self { user, secret })
    }

    /// Returns the value of the `Authorization` header, marked as sensitive so that logs omit it.
    pub(super) fn basic_auth_header(&self) -> Result<HeaderValue> {
        let both = STANDARD.encode(format!("{}:{}", self.user, self.secret));
        let mut value = HeaderValue::from_str(&format!("Basic {both}"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Finds the credentials for a registry. `None` if there are none.
    pub(super) fn find_for_registry(registry: &str) -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("WEIR_REGISTRY").is_some_and(|named| named.eq_ignore_ascii_case(registry)) {
            return match (variable("WEIR_REGISTRY_USER"), variable("WEIR_REGISTRY_PASSWORD")) {
                (Some(user), Some(secret)) => Self::new(user, secret).map(Some),
                (None, None) => Ok(None),
                _ => bail!("set both of WEIR_REGISTRY_USER and WEIR_REGISTRY_PASSWORD, or neither"),
            };
        }
        for path in login_file_paths() {
            let found = DockerConfig::read_login_file(&path)?
                .map(|configuration| configuration.find_credentials_in_config(registry));
            if let Some(found) = found.transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Returns the paths of the login files of Docker and Podman.
fn login_file_paths() -> Vec<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(variable("HOME")?.join(".docker")));
    let docker = docker.map(|folder| folder.join("config.json"));
    let podman = variable("REGISTRY_AUTH_FILE")
        .or_else(|| Some(variable("XDG_RUNTIME_DIR")?.join("containers/auth.json")));
    docker.into_iter().chain(podman).collect()
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerLogin>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerLogin {
    auth: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperResponse {
    username: String,
    secret: String,
}

impl DockerConfig {
    fn read_login_file(path: &Path) -> Result<Option<Self>> {
        let path_text = path.display();
        match std::fs::metadata(path) {
            Err(_) => return Ok(None),
            Ok(file) => ensure!(
                file.len() <= MAX_CONFIG_BYTES,
                "{path_text} is too large for a login file"
            ),
        }
        let text = std::fs::read(path).with_context(|| format!("cannot read {path_text}"))?;
        // The error has no content of the file, which has secrets.
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|error| {
            anyhow::anyhow!(
                "{path_text} is not a valid login file: error in line {}",
                error.line()
            )
        })
    }

    fn find_credentials_in_config(&self, registry: &str) -> Result<Option<Credentials>> {
        let names = registry_aliases(registry);
        let of_host = names.iter().find_map(|name| self.cred_helpers.get(*name));
        let helper = of_host.map(String::as_str).or(Some(self.creds_store.as_str()));
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            for name in &names {
                if let Some(found) = run_credential_helper(helper, name)? {
                    return Ok(Some(found));
                }
            }
        }
        let login = names.iter().find_map(|name| self.auths.get(*name));
        let Some(login) = login.filter(|login| !login.auth.is_empty()) else {
            return Ok(None);
        };
        let both = STANDARD
            .decode(&login.auth)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok());
        let both = both.with_context(|| format!("the login for {registry} is not in base64"))?;
        let (user, secret) = both
            .split_once(':')
            .with_context(|| format!("the login for {registry} has no password"))?;
        Credentials::new(user.to_owned(), secret.trim_end_matches('\0').to_owned()).map(Some)
    }
}

/// Returns the names of a registry in login files. Docker Hub has an old name there.
fn registry_aliases(registry: &str) -> Vec<&str> {
    match registry {
        "docker.io" | "registry-1.docker.io" => vec!["https://index.docker.io/v1/", "docker.io"],
        _ => vec![registry],
    }
}

/// Gets credentials from a credential helper: runs `docker-credential-NAME get` with the registry on standard input.
fn run_credential_helper(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        helper.chars().all(plain),
        "'{helper}' is not a valid name of a credential helper"
    );
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start the credential helper {program} of the login file"))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input may still return credentials.
        let _ = input.write_all(registry.as_bytes());
    }
    let output = child.wait_with_output()?;
    // The helper has no credentials for this registry.
    if !output.status.success() {
        return Ok(None);
    }
    let response: HelperResponse = serde_json::from_slice(&output.stdout)
        .map_err(|_| anyhow::anyhow!("{program} did not return a user and a secret"))?;
    Credentials::new(response.username, response.secret).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_auth_header(configuration: &str, registry: &str) -> Result<Option<String>> {
        let read: DockerConfig = serde_json::from_str(configuration).unwrap();
        let found = read.find_credentials_in_config(registry)?;
        let text = |credentials: Credentials| {
            credentials
                .basic_auth_header()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        Ok(found.map(text))
    }

    #[test]
    fn login_is_used_only_for_its_registry() {
        let logins = r#"{ "auths": { "a.example": { "auth": "dTpw" }, "https://index.docker.io/v1/": { "auth": "ZDpx" },
            "empty.example": {} }, "HttpHeaders": {} }"#;
        assert_eq!(
            find_auth_header(logins, "a.example").unwrap().as_deref(),
            Some("Basic dTpw")
        );
        assert_eq!(
            find_auth_header(logins, "docker.io").unwrap().as_deref(),
            Some("Basic ZDpx")
        );
        assert_eq!(find_auth_header(logins, "b.example").unwrap(), None);
        assert_eq!(find_auth_header(logins, "empty.example").unwrap(), None);
    }

    #[test]
    fn credential_errors_do_not_contain_the_secret() {
        for (auth, part) in [
            ("!", "base64"),
            ("c2VjcmV0", "no password"),
            ("PHRva2VuPjpzZWNyZXQ=", "identity token"),
        ] {
            let logins = format!(r#"{{ "auths": {{ "a.example": {{ "auth": "{auth}" }} }} }}"#);
            let error = format!("{:#}", find_auth_header(&logins, "a.example").unwrap_err());
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
        let helper = r#"{ "credHelpers": { "a.example": "x/../../y" } }"#;
        assert!(find_auth_header(helper, "a.example").is_err());
    }

    #[test]
    fn debug_output_of_a_request_hides_credentials() {
        let credentials = Credentials::new("user".into(), "secret".into()).unwrap();
        assert!(!format!("{:?}", credentials.basic_auth_header().unwrap()).contains("dXNlcjpzZWNyZXQ"));
    }
}
