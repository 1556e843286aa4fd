//! Who one is to a registry: from the environment, or where `docker login` and its like have put it.
//!
//! The environment names the registry it is for, so that a password is never sent to another that a manifest happens to name.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Bytes of a configuration, and of what a helper says.
const MOST_BYTES: u64 = 1 << 20;

/// A user and a password, or a token in its place. Never shown: it has no `Debug`.
#[derive(Clone)]
pub(super) struct Credentials {
    user: String,
    secret: String,
}

impl Credentials {
    pub(super) fn new(user: String, secret: String) -> Result<Self> {
        // Docker says so where there is only a token of a kind that is renewed by another protocol.
        ensure!(
            user != "<token>",
            "the login is an identity token, which is not known here: log in with a user and an access token"
        );
        Ok(Self { user, secret })
    }

    /// The value of the header `Authorization`, which is left out of logs.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let both = STANDARD.encode(format!("{}:{}", self.user, self.secret));
        let mut value = HeaderValue::from_str(&format!("Basic {both}"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Those for a registry, if there are any.
    pub(super) fn of(registry: &str) -> Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("WEIR_REGISTRY").is_some_and(|named| named.eq_ignore_ascii_case(registry)) {
            return match (variable("WEIR_REGISTRY_USER"), variable("WEIR_REGISTRY_PASSWORD")) {
                (Some(user), Some(secret)) => Self::new(user, secret).map(Some),
                (None, None) => Ok(None),
                _ => bail!("set both of WEIR_REGISTRY_USER and WEIR_REGISTRY_PASSWORD, or neither"),
            };
        }
        for path in configurations() {
            let found = Configuration::read(&path)?.map(|configuration| configuration.credentials(registry));
            if let Some(found) = found.transpose()?.flatten() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Where logins are kept: Docker's file, then Podman's.
fn configurations() -> Vec<PathBuf> {
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
struct Configuration {
    auths: BTreeMap<String, Login>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

impl Configuration {
    fn read(path: &Path) -> Result<Option<Self>> {
        let place = path.display();
        match std::fs::metadata(path) {
            Err(_) => return Ok(None),
            Ok(file) => ensure!(
                file.len() <= MOST_BYTES,
                "{place} is too large for a list of logins"
            ),
        }
        let text = std::fs::read(path).with_context(|| format!("cannot read {place}"))?;
        // What is wrong with it is said without what it says.
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|error| {
            anyhow::anyhow!(
                "{place} is no list of logins: line {} is not as it should be",
                error.line()
            )
        })
    }

    fn credentials(&self, registry: &str) -> Result<Option<Credentials>> {
        let names = names(registry);
        let of_host = names.iter().find_map(|name| self.cred_helpers.get(*name));
        let helper = of_host.map(String::as_str).or(Some(self.creds_store.as_str()));
        if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
            for name in &names {
                if let Some(found) = ask(helper, name)? {
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

/// What a registry is called in lists of logins; Docker's own has an old name there.
fn names(registry: &str) -> Vec<&str> {
    match registry {
        "docker.io" | "registry-1.docker.io" => vec!["https://index.docker.io/v1/", "docker.io"],
        _ => vec![registry],
    }
}

/// Asks a credential helper, `docker-credential-NAME get` with the registry on its input.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    ensure!(
        helper.chars().all(plain),
        "'{helper}' is no name of a credential helper"
    );
    let program = format!("docker-credential-{helper}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {program}, which the list of logins names"))?;
    if let Some(mut input) = child.stdin.take() {
        // One that reads nothing answers all the same.
        let _ = input.write_all(registry.as_bytes());
    }
    let said = child.wait_with_output()?;
    // It has none for this registry.
    if !said.status.success() {
        return Ok(None);
    }
    let helped: Helped = serde_json::from_slice(&said.stdout)
        .map_err(|_| anyhow::anyhow!("{program} did not answer with a user and a secret"))?;
    Credentials::new(helped.username, helped.secret).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(configuration: &str, registry: &str) -> Result<Option<String>> {
        let read: Configuration = serde_json::from_str(configuration).unwrap();
        let found = read.credentials(registry)?;
        let text = |credentials: Credentials| credentials.header().unwrap().to_str().unwrap().to_owned();
        Ok(found.map(text))
    }

    #[test]
    fn a_login_is_for_its_registry_alone() {
        let logins = r#"{ "auths": { "a.example": { "auth": "dTpw" }, "https://index.docker.io/v1/": { "auth": "ZDpx" },
            "empty.example": {} }, "HttpHeaders": {} }"#;
        assert_eq!(
            header(logins, "a.example").unwrap().as_deref(),
            Some("Basic dTpw")
        );
        assert_eq!(
            header(logins, "docker.io").unwrap().as_deref(),
            Some("Basic ZDpx")
        );
        assert_eq!(header(logins, "b.example").unwrap(), None);
        assert_eq!(header(logins, "empty.example").unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for (auth, part) in [
            ("!", "base64"),
            ("c2VjcmV0", "no password"),
            ("PHRva2VuPjpzZWNyZXQ=", "identity token"),
        ] {
            let logins = format!(r#"{{ "auths": {{ "a.example": {{ "auth": "{auth}" }} }} }}"#);
            let error = format!("{:#}", header(&logins, "a.example").unwrap_err());
            assert!(error.contains(part) && !error.contains("secret"), "{error}");
        }
        let helper = r#"{ "credHelpers": { "a.example": "x/../../y" } }"#;
        assert!(header(helper, "a.example").is_err());
    }

    #[test]
    fn credentials_are_left_out_of_what_is_shown_of_a_request() {
        let credentials = Credentials::new("user".into(), "secret".into()).unwrap();
        assert!(!format!("{:?}", credentials.header().unwrap()).contains("dXNlcjpzZWNyZXQ"));
    }
}
