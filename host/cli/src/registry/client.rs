//! A registry that is asked. Nothing it says is believed: not lengths, not digests, not where to go next.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;
use url::{Host, Url};
use weir_core::component::ComponentDigest;

use super::Reference;
use super::artifact::{Artifact, MANIFEST, layer};
use super::challenge::Challenge;
use super::credentials::Credentials;

/// Bytes of a manifest: what the specification has registries take.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of a token with what comes with it, and of what a registry says is wrong.
const SHORT_BYTES: u64 = 64 << 10;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Longest wait for a connection, and for the next bytes.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
/// A component of 64 MiB over a slow line.
const PATIENCE: Duration = Duration::from_secs(600);

/// How registries may be reached.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Access {
    /// Speak to registries without TLS; to those on this machine that is done anyway
    #[arg(long)]
    plain_http: bool,
}

/// A registry, and the repository of a reference in it.
pub(crate) struct Registry {
    client: Client,
    /// Where its interface begins.
    base: Url,
    repository: String,
    name: String,
    credentials: Option<Credentials>,
    /// What it wanted to see, once it has said so.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A component out of a registry.
pub(crate) struct Pulled {
    pub(crate) component: Vec<u8>,
    /// That of the manifest, by which it is the same for good.
    pub(crate) digest: ComponentDigest,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// The one that a reference names.
    pub(crate) fn open(reference: &Reference, access: Access) -> Result<Self> {
        let credentials = Credentials::of(&reference.registry)?;
        Self::with(reference, access, credentials)
    }

    pub(super) fn with(
        reference: &Reference,
        access: Access,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let secure =
            Url::parse(&format!("https://{host}/v2/")).with_context(|| format!("'{host}' is no host"))?;
        let base = match access.plain_http || is_here(&secure) {
            true => Url::parse(&format!("http://{host}/v2/"))?,
            false => secure,
        };
        // One that is there already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            client,
            base,
            repository: reference.repository.clone(),
            name: reference.registry.clone(),
            credentials,
            authorization: Mutex::default(),
        })
    }

    /// The component that a reference names, which is what its digests say.
    pub(crate) async fn pull(&self, reference: &Reference) -> Result<Pulled> {
        let pulled = async {
            let version = reference
                .version()
                .context("it has neither a tag nor a digest: name:tag or name@sha256:…")?;
            let url = self.url(&format!("manifests/{version}"))?;
            let answer = self.ask(Method::GET, url, Some(MANIFEST), None, false).await?;
            let manifest = self.read(self.good(answer).await?, MANIFEST_BYTES).await?;
            let digest = ComponentDigest::of(&manifest);
            if let Some(wanted) = reference.digest {
                ensure!(
                    digest == wanted,
                    "the registry answered with another manifest, {digest}"
                );
            }
            let (named, size) = layer(&manifest)?;
            let url = self.url(&format!("blobs/{named}"))?;
            let answer = self.ask(Method::GET, url, None, None, false).await?;
            let component = self.read(self.good(answer).await?, size).await?;
            let got = ComponentDigest::of(&component);
            ensure!(
                got == named && component.len() as u64 == size,
                "the registry answered with other bytes than {named}, {got}"
            );
            Ok(Pulled { component, digest })
        };
        pulled.await.with_context(|| format!("cannot pull {reference}"))
    }

    /// Publishes a component under a tag; the digest of its manifest.
    pub(crate) async fn publish(&self, reference: &Reference, component: Vec<u8>) -> Result<ComponentDigest> {
        let published = async {
            ensure!(
                reference.digest.is_none(),
                "a digest follows from what is published: name a tag"
            );
            let tag = reference.tag.as_deref().context("it has no tag: name:tag")?;
            let artifact = Artifact::of(component)?;
            for (digest, bytes) in artifact.blobs {
                self.put_blob(&digest, bytes).await?;
            }
            let digest = ComponentDigest::of(&artifact.manifest);
            let url = self.url(&format!("manifests/{tag}"))?;
            let body = Some((MANIFEST, artifact.manifest));
            let answer = self.ask(Method::PUT, url, None, body, true).await?;
            self.good(answer).await?;
            Ok(digest)
        };
        published
            .await
            .with_context(|| format!("cannot publish {reference}"))
    }

    async fn put_blob(&self, digest: &ComponentDigest, bytes: Vec<u8>) -> Result<()> {
        let there = self.url(&format!("blobs/{digest}"))?;
        if self.ask(Method::HEAD, there, None, None, true).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.url("blobs/uploads/")?;
        let answer = self.ask(Method::POST, begin.clone(), None, None, true).await?;
        let answer = self.good(answer).await?;
        let mut url = self.next(&begin, &answer)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let body = Some(("application/octet-stream", bytes));
        let answer = self.ask(Method::PUT, url, None, body, true).await?;
        self.good(answer).await.map(drop)
    }

    fn url(&self, path: &str) -> Result<Url> {
        Ok(self.base.join(&format!("{}/{path}", self.repository))?)
    }

    /// Asks, with what the registry wants to see, and for what is only read follows its redirects.
    async fn ask(
        &self,
        method: Method,
        mut url: Url,
        accept: Option<&'static str>,
        body: Option<(&'static str, Vec<u8>)>,
        push: bool,
    ) -> Result<Response> {
        let reads = [Method::GET, Method::HEAD].contains(&method);
        let (mut redirects, mut asked_for_token) = (0, false);
        loop {
            let mut request = self.client.request(method.clone(), url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            // Nobody else is shown what is for the registry.
            let own = url.origin() == self.base.origin();
            if let Some(value) = self.authorization.lock().clone().filter(|_| own) {
                request = request.header(AUTHORIZATION, value);
            }
            if let Some((kind, bytes)) = &body {
                request = request.header(CONTENT_TYPE, *kind).body(bytes.clone());
            }
            let answer = request.send().await.map_err(|error| self.failed(&url, &error))?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if own && !asked_for_token => {
                    asked_for_token = true;
                    let header = self.authorize(&answer, push).await?;
                    *self.authorization.lock() = Some(header);
                }
                status if reads && status.is_redirection() => {
                    redirects += 1;
                    ensure!(
                        redirects <= REDIRECTS,
                        "{} leads further after {REDIRECTS} redirects",
                        self.name
                    );
                    url = self.next(&url, &answer)?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// What a registry wants to see that has answered with 401.
    async fn authorize(&self, answer: &Response, push: bool) -> Result<HeaderValue> {
        let name = &self.name;
        let login = || {
            format!(
                "{name} wants a login: `docker login {name}`, or set WEIR_REGISTRY={name}, WEIR_REGISTRY_USER and \
                 WEIR_REGISTRY_PASSWORD"
            )
        };
        let (realm, service) = match Challenge::of(answer.headers()) {
            Some(Challenge::Basic) => return self.credentials.as_ref().with_context(login)?.header(),
            Some(Challenge::Bearer { realm, service }) => (realm, service),
            None => bail!("{name} wants to see what is not known here"),
        };
        let mut url =
            Url::parse(&realm).with_context(|| format!("{name} sends for a token to what is no URL"))?;
        self.check(&url)?;
        let rights = if push { "pull,push" } else { "pull" };
        // What is wanted, and not what the registry says is wanted.
        url.query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:{rights}", self.repository));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.client.get(url.clone());
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, credentials.header()?);
        }
        let answer = request.send().await.map_err(|error| self.failed(&url, &error))?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()) {
            match self.credentials {
                Some(_) => bail!("{name} does not take the login"),
                None => bail!(login()),
            }
        }
        let said = self.read(self.good(answer).await?, SHORT_BYTES).await?;
        let token = serde_json::from_slice::<Token>(&said).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let token = token.with_context(|| format!("{name} sends for a token to where there is none"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| anyhow::anyhow!("the token for {name} is none"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Where an answer leads.
    fn next(&self, url: &Url, answer: &Response) -> Result<Url> {
        let location = answer
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let next = next.with_context(|| format!("{} leads to nowhere", self.name))?;
        self.check(&next)?;
        Ok(next)
    }

    /// Where a registry leads must be as safe as it is itself: with TLS, or without on the same host.
    fn check(&self, url: &Url) -> Result<()> {
        let same_host =
            url.scheme() == "http" && self.base.scheme() == "http" && url.host() == self.base.host();
        ensure!(
            url.scheme() == "https" || same_host,
            "{} leads to {}://{}, which is not as safe as itself",
            self.name,
            url.scheme(),
            url.host_str().unwrap_or_default()
        );
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "{} leads to a URL with a user or a password",
            self.name
        );
        Ok(())
    }

    /// A body of at most so many bytes, whatever length it claims.
    async fn read(&self, mut answer: Response, most: u64) -> Result<Vec<u8>> {
        let long = || {
            anyhow::anyhow!(
                "{} answered with more than the {most} bytes there can be",
                self.name
            )
        };
        if answer.content_length().is_some_and(|length| length > most) {
            return Err(long());
        }
        let mut bytes = Vec::new();
        let url = answer.url().clone();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.failed(&url, &error))? {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(long());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// An answer that is one, or what the registry says is wrong.
    async fn good(&self, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = self.read(answer, SHORT_BYTES).await.unwrap_or_default();
        let why = serde_json::from_slice::<serde_json::Value>(&said).ok();
        let why = why.and_then(|said| {
            let first = said.pointer("/errors/0/message")?.as_str()?;
            let plain = |c: &char| !c.is_control();
            Some(first.chars().filter(plain).take(200).collect::<String>())
        });
        match (status, why) {
            (StatusCode::NOT_FOUND, _) => bail!("{} has no such thing ({status})", self.name),
            (_, Some(why)) => bail!("{} says: {why} ({status})", self.name),
            (_, None) => bail!("{} answered with {status}", self.name),
        }
    }

    /// An error without the URL, in which there may be a signature.
    fn failed(&self, url: &Url, error: &reqwest::Error) -> anyhow::Error {
        let host = url.host_str().unwrap_or_default();
        let hint = match url.scheme() == "https" && error.is_connect() {
            true => ", or not with TLS (--plain-http speaks without)",
            false => "",
        };
        match (error.is_timeout(), error.is_connect()) {
            (true, _) => anyhow::anyhow!("{host} does not answer in time"),
            (_, true) => anyhow::anyhow!("{host} cannot be reached{hint}"),
            _ => anyhow::anyhow!("the connection to {host} broke off"),
        }
    }
}

/// Whether a registry is on this machine.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
