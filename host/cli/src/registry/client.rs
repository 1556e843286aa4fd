//! HTTP client of a registry. Lengths, digests and redirects in responses are checked, because registries are not trusted.

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

use super::ArtifactReference;
use super::artifact::{ComponentArtifact, MANIFEST_MEDIA_TYPE, parse_component_layer};
use super::auth_challenge::AuthChallenge;
use super::credentials::Credentials;

/// Maximum size of a manifest in bytes, as the OCI specification recommends.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Maximum bytes of a token response or an error response.
const MAX_SHORT_BODY_BYTES: u64 = 64 << 10;
/// Maximum number of redirects.
const MAX_REDIRECTS: usize = 5;
/// Timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout between two parts of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of a request. It is long enough to transfer a component of 64 MiB over a slow connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);

/// Options of connections to registries.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct RegistryAccessArgs {
    /// Connect to registries without TLS; for registries on this machine (localhost) this is always the case
    #[arg(long)]
    plain_http: bool,
}

/// A client for one repository in a registry.
pub(crate) struct RegistryClient {
    client: Client,
    /// Base URL of the registry's API.
    base_url: Url,
    repository: String,
    registry_name: String,
    credentials: Option<Credentials>,
    /// Value of the `Authorization` header. `None` until the registry has requested authorization.
    authorization: Mutex<Option<HeaderValue>>,
}

/// A component from a registry.
pub(crate) struct PulledComponent {
    pub(crate) component: Vec<u8>,
    /// Digest of the manifest, for an immutable reference.
    pub(crate) digest: ComponentDigest,
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

impl RegistryClient {
    /// Creates a client for the registry in a reference, with the stored credentials.
    pub(crate) fn open(reference: &ArtifactReference, access: RegistryAccessArgs) -> Result<Self> {
        let credentials = Credentials::find_for_registry(&reference.registry)?;
        Self::with_credentials(reference, access, credentials)
    }

    pub(super) fn with_credentials(
        reference: &ArtifactReference,
        access: RegistryAccessArgs,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let host = match reference.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            other => other,
        };
        let secure = Url::parse(&format!("https://{host}/v2/"))
            .with_context(|| format!("'{host}' is not a valid host name"))?;
        let base = match access.plain_http || is_loopback(&secure) {
            true => Url::parse(&format!("http://{host}/v2/"))?,
            false => secure,
        };
        // An error means that a TLS crypto provider is already installed. The process only ever installs this one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .build()?;
        Ok(Self {
            client,
            base_url: base,
            repository: reference.repository.clone(),
            registry_name: reference.registry.clone(),
            credentials,
            authorization: Mutex::default(),
        })
    }

    /// Pulls the component of a reference and checks its digests.
    pub(crate) async fn pull(&self, reference: &ArtifactReference) -> Result<PulledComponent> {
        let pulled = async {
            let version = reference
                .tag_or_digest()
                .context("it has neither a tag nor a digest: name:tag or name@sha256:…")?;
            let url = self.repository_url(&format!("manifests/{version}"))?;
            let answer = self
                .send_request(Method::GET, url, Some(MANIFEST_MEDIA_TYPE), None, false)
                .await?;
            let manifest = self
                .read_limited_body(self.require_success(answer).await?, MAX_MANIFEST_BYTES)
                .await?;
            let digest = ComponentDigest::from_content(&manifest);
            if let Some(wanted) = reference.digest {
                ensure!(
                    digest == wanted,
                    "the manifest's digest is {digest}, expected {wanted}"
                );
            }
            let (named, size) = parse_component_layer(&manifest)?;
            let url = self.repository_url(&format!("blobs/{named}"))?;
            let answer = self.send_request(Method::GET, url, None, None, false).await?;
            let component = self
                .read_limited_body(self.require_success(answer).await?, size)
                .await?;
            let got = ComponentDigest::from_content(&component);
            ensure!(
                got == named && component.len() as u64 == size,
                "the registry answered with other bytes than {named}, {got}"
            );
            Ok(PulledComponent { component, digest })
        };
        pulled.await.with_context(|| format!("cannot pull {reference}"))
    }

    /// Publishes a component with a tag and returns the digest of the manifest.
    pub(crate) async fn publish(
        &self,
        reference: &ArtifactReference,
        component: Vec<u8>,
    ) -> Result<ComponentDigest> {
        let published = async {
            ensure!(
                reference.digest.is_none(),
                "a digest follows from what is published: name a tag"
            );
            let tag = reference.tag.as_deref().context("it has no tag: name:tag")?;
            let artifact = ComponentArtifact::from_component(component)?;
            for (digest, bytes) in artifact.blobs {
                self.put_blob(&digest, bytes).await?;
            }
            let digest = ComponentDigest::from_content(&artifact.manifest);
            let url = self.repository_url(&format!("manifests/{tag}"))?;
            let body = Some((MANIFEST_MEDIA_TYPE, artifact.manifest));
            let answer = self.send_request(Method::PUT, url, None, body, true).await?;
            self.require_success(answer).await?;
            Ok(digest)
        };
        published
            .await
            .with_context(|| format!("cannot publish {reference}"))
    }

    async fn put_blob(&self, digest: &ComponentDigest, bytes: Vec<u8>) -> Result<()> {
        let there = self.repository_url(&format!("blobs/{digest}"))?;
        if self
            .send_request(Method::HEAD, there, None, None, true)
            .await?
            .status()
            == StatusCode::OK
        {
            return Ok(());
        }
        let begin = self.repository_url("blobs/uploads/")?;
        let answer = self
            .send_request(Method::POST, begin.clone(), None, None, true)
            .await?;
        let answer = self.require_success(answer).await?;
        let mut url = self.redirect_url(&begin, &answer)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let body = Some(("application/octet-stream", bytes));
        let answer = self.send_request(Method::PUT, url, None, body, true).await?;
        self.require_success(answer).await.map(drop)
    }

    fn repository_url(&self, path: &str) -> Result<Url> {
        Ok(self.base_url.join(&format!("{}/{path}", self.repository))?)
    }

    /// Sends a request with the required authorization. Follows the redirects of GET and HEAD requests.
    async fn send_request(
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
            // Send the registry's credentials only to the registry's own origin.
            let own = url.origin() == self.base_url.origin();
            if let Some(value) = self.authorization.lock().clone().filter(|_| own) {
                request = request.header(AUTHORIZATION, value);
            }
            if let Some((kind, bytes)) = &body {
                request = request.header(CONTENT_TYPE, *kind).body(bytes.clone());
            }
            let answer = request
                .send()
                .await
                .map_err(|error| self.request_error(&url, &error))?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if own && !asked_for_token => {
                    asked_for_token = true;
                    let header = self.request_authorization(&answer, push).await?;
                    *self.authorization.lock() = Some(header);
                }
                status if reads && status.is_redirection() => {
                    redirects += 1;
                    ensure!(
                        redirects <= MAX_REDIRECTS,
                        "{} redirected more than {MAX_REDIRECTS} times",
                        self.registry_name
                    );
                    url = self.redirect_url(&url, &answer)?;
                }
                _ => return Ok(answer),
            }
        }
    }

    /// Returns the `Authorization` header that a 401 response of the registry requires.
    async fn request_authorization(&self, answer: &Response, push: bool) -> Result<HeaderValue> {
        let name = &self.registry_name;
        let login = || {
            format!(
                "{name} requires authentication: run `docker login {name}`, or set WEIR_REGISTRY={name}, WEIR_REGISTRY_USER and \
                 WEIR_REGISTRY_PASSWORD"
            )
        };
        let (realm, service) = match AuthChallenge::from_headers(answer.headers()) {
            Some(AuthChallenge::Basic) => {
                return self.credentials.as_ref().with_context(login)?.basic_auth_header();
            }
            Some(AuthChallenge::Bearer { realm, service }) => (realm, service),
            None => bail!("{name} requests an unsupported authentication scheme"),
        };
        let mut url =
            Url::parse(&realm).with_context(|| format!("the token realm of {name} is not a valid URL"))?;
        self.check_redirect_url(&url)?;
        let rights = if push { "pull,push" } else { "pull" };
        // Request the scope that this client needs, and ignore the scope in the registry's challenge.
        url.query_pairs_mut()
            .append_pair("scope", &format!("repository:{}:{rights}", self.repository));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let mut request = self.client.get(url.clone());
        if let Some(credentials) = &self.credentials {
            request = request.header(AUTHORIZATION, credentials.basic_auth_header()?);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| self.request_error(&url, &error))?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status()) {
            match self.credentials {
                Some(_) => bail!("{name} rejected the credentials"),
                None => bail!(login()),
            }
        }
        let said = self
            .read_limited_body(self.require_success(answer).await?, MAX_SHORT_BODY_BYTES)
            .await?;
        let token = serde_json::from_slice::<TokenResponse>(&said).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let token = token.with_context(|| format!("the token response of {name} contains no token"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| anyhow::anyhow!("the token for {name} contains invalid characters"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns the checked URL in the `Location` header of a response.
    fn redirect_url(&self, url: &Url, answer: &Response) -> Result<Url> {
        let location = answer
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let next = next.with_context(|| {
            format!(
                "the response of {} has no valid Location header",
                self.registry_name
            )
        })?;
        self.check_redirect_url(&next)?;
        Ok(next)
    }

    /// Checks that a URL from the registry uses HTTPS. If the registry uses plain HTTP, an HTTP URL with the same host is also
    /// accepted. URLs with a user or a password are rejected.
    fn check_redirect_url(&self, url: &Url) -> Result<()> {
        let same_host =
            url.scheme() == "http" && self.base_url.scheme() == "http" && url.host() == self.base_url.host();
        ensure!(
            url.scheme() == "https" || same_host,
            "{} refers to {}://{} without TLS",
            self.registry_name,
            url.scheme(),
            url.host_str().unwrap_or_default()
        );
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "{} refers to a URL with a user or a password",
            self.registry_name
        );
        Ok(())
    }

    /// Reads a response body. Returns an error if it is longer than `most` bytes, even if `Content-Length` is missing or wrong.
    async fn read_limited_body(&self, mut answer: Response, most: u64) -> Result<Vec<u8>> {
        let long = || anyhow::anyhow!("the response of {} exceeds {most} bytes", self.registry_name);
        if answer.content_length().is_some_and(|length| length > most) {
            return Err(long());
        }
        let mut bytes = Vec::new();
        let url = answer.url().clone();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| self.request_error(&url, &error))?
        {
            if (bytes.len() + chunk.len()) as u64 > most {
                return Err(long());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns the response if its status is successful, otherwise an error with the registry's message.
    async fn require_success(&self, answer: Response) -> Result<Response> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let said = self
            .read_limited_body(answer, MAX_SHORT_BODY_BYTES)
            .await
            .unwrap_or_default();
        let why = serde_json::from_slice::<serde_json::Value>(&said).ok();
        let why = why.and_then(|said| {
            let first = said.pointer("/errors/0/message")?.as_str()?;
            let plain = |c: &char| !c.is_control();
            Some(first.chars().filter(plain).take(200).collect::<String>())
        });
        match (status, why) {
            (StatusCode::NOT_FOUND, _) => bail!(
                "{} has no such repository, tag or blob ({status})",
                self.registry_name
            ),
            (_, Some(why)) => bail!("{} says: {why} ({status})", self.registry_name),
            (_, None) => bail!("{} answered with {status}", self.registry_name),
        }
    }

    /// Converts a request error to a message that omits the URL, because the URL may contain a signature.
    fn request_error(&self, url: &Url, error: &reqwest::Error) -> anyhow::Error {
        let host = url.host_str().unwrap_or_default();
        let hint = match url.scheme() == "https" && error.is_connect() {
            true => ", or it does not support TLS (use --plain-http)",
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
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
