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
use super::artifact::{ComponentArtifact, MANIFEST_MEDIA_TYPE, find_component_layer_in_manifest};
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
pub(crate) struct PlainHttpArg {
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
    pub(crate) manifest_digest: ComponentDigest,
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

impl RegistryClient {
    /// Creates a client for the registry in a reference, with the stored credentials.
    pub(crate) fn open(reference: &ArtifactReference, access: PlainHttpArg) -> Result<Self> {
        let credentials = Credentials::find_for_registry(&reference.registry)?;
        Self::new_with_credentials(reference, access, credentials)
    }

    pub(super) fn new_with_credentials(
        reference: &ArtifactReference,
        access: PlainHttpArg,
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
                .digest_or_tag()
                .context("it has neither a tag nor a digest: name:tag or name@sha256:…")?;
            let url = self.repository_url(&format!("manifests/{version}"))?;
            let response = self
                .send_request(Method::GET, url, Some(MANIFEST_MEDIA_TYPE), None, false)
                .await?;
            let manifest = self
                .read_limited_body(self.require_success(response).await?, MAX_MANIFEST_BYTES)
                .await?;
            let digest = ComponentDigest::from_content(&manifest);
            if let Some(expected) = reference.digest {
                ensure!(
                    digest == expected,
                    "the manifest's digest is {digest}, expected {expected}"
                );
            }
            let (layer_digest, size) = find_component_layer_in_manifest(&manifest)?;
            let url = self.repository_url(&format!("blobs/{layer_digest}"))?;
            let response = self.send_request(Method::GET, url, None, None, false).await?;
            let component = self
                .read_limited_body(self.require_success(response).await?, size)
                .await?;
            let actual_digest = ComponentDigest::from_content(&component);
            ensure!(
                actual_digest == layer_digest && component.len() as u64 == size,
                "the registry returned other bytes than {layer_digest}: their digest is {actual_digest}"
            );
            Ok(PulledComponent {
                component,
                manifest_digest: digest,
            })
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
                "cannot publish to a digest: use a tag, as in name:tag"
            );
            let tag = reference.tag.as_deref().context("it has no tag: name:tag")?;
            let artifact = ComponentArtifact::from_component(component)?;
            for (digest, bytes) in artifact.blobs {
                self.put_blob(&digest, bytes).await?;
            }
            let digest = ComponentDigest::from_content(&artifact.manifest);
            let url = self.repository_url(&format!("manifests/{tag}"))?;
            let body = Some((MANIFEST_MEDIA_TYPE, artifact.manifest));
            let response = self.send_request(Method::PUT, url, None, body, true).await?;
            self.require_success(response).await?;
            Ok(digest)
        };
        published
            .await
            .with_context(|| format!("cannot publish {reference}"))
    }

    async fn put_blob(&self, digest: &ComponentDigest, bytes: Vec<u8>) -> Result<()> {
        let blob_url = self.repository_url(&format!("blobs/{digest}"))?;
        if self
            .send_request(Method::HEAD, blob_url, None, None, true)
            .await?
            .status()
            == StatusCode::OK
        {
            return Ok(());
        }
        let uploads_url = self.repository_url("blobs/uploads/")?;
        let response = self
            .send_request(Method::POST, uploads_url.clone(), None, None, true)
            .await?;
        let response = self.require_success(response).await?;
        let mut url = self.redirect_url(&uploads_url, &response)?;
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        let body = Some(("application/octet-stream", bytes));
        let response = self.send_request(Method::PUT, url, None, body, true).await?;
        self.require_success(response).await.map(drop)
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
        let is_read = [Method::GET, Method::HEAD].contains(&method);
        let (mut redirects, mut authorization_requested) = (0, false);
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
            let response = request
                .send()
                .await
                .map_err(|error| self.request_error(&url, &error))?;
            match response.status() {
                StatusCode::UNAUTHORIZED if own && !authorization_requested => {
                    authorization_requested = true;
                    let header = self.request_authorization(&response, push).await?;
                    *self.authorization.lock() = Some(header);
                }
                status if is_read && status.is_redirection() => {
                    redirects += 1;
                    ensure!(
                        redirects <= MAX_REDIRECTS,
                        "{} redirected more than {MAX_REDIRECTS} times",
                        self.registry_name
                    );
                    url = self.redirect_url(&url, &response)?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// Returns the `Authorization` header that a 401 response of the registry requires.
    async fn request_authorization(&self, response: &Response, push: bool) -> Result<HeaderValue> {
        let name = &self.registry_name;
        let login = || {
            format!(
                "{name} requires authentication: run `docker login {name}`, or set WEIR_REGISTRY={name}, WEIR_REGISTRY_USER and \
                 WEIR_REGISTRY_PASSWORD"
            )
        };
        let (realm, service) = match AuthChallenge::from_headers(response.headers()) {
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
        let response = request
            .send()
            .await
            .map_err(|error| self.request_error(&url, &error))?;
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&response.status()) {
            match self.credentials {
                Some(_) => bail!("{name} rejected the credentials"),
                None => bail!(login()),
            }
        }
        let token_body = self
            .read_limited_body(self.require_success(response).await?, MAX_SHORT_BODY_BYTES)
            .await?;
        let token = serde_json::from_slice::<TokenResponse>(&token_body).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        let token = token.with_context(|| format!("the token response of {name} contains no token"))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| anyhow::anyhow!("the token for {name} contains invalid characters"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Returns the checked URL in the `Location` header of a response.
    fn redirect_url(&self, url: &Url, response: &Response) -> Result<Url> {
        let location = response
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

    /// Checks a URL that the registry names as a redirect, upload or token address: it must use HTTPS. If the registry uses plain
    /// HTTP, an HTTP URL with the same host is also accepted. URLs with a user or a password are rejected.
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

    /// Reads a response body. Returns an error if it is longer than `max_bytes` bytes, even if `Content-Length` is missing or wrong.
    async fn read_limited_body(&self, mut response: Response, max_bytes: u64) -> Result<Vec<u8>> {
        let long = || anyhow::anyhow!("the response of {} exceeds {max_bytes} bytes", self.registry_name);
        if response.content_length().is_some_and(|length| length > max_bytes) {
            return Err(long());
        }
        let mut bytes = Vec::new();
        let url = response.url().clone();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.request_error(&url, &error))?
        {
            if (bytes.len() + chunk.len()) as u64 > max_bytes {
                return Err(long());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// Returns the response if its status is successful, otherwise an error with the registry's message.
    async fn require_success(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self
            .read_limited_body(response, MAX_SHORT_BODY_BYTES)
            .await
            .unwrap_or_default();
        let parsed = serde_json::from_slice::<serde_json::Value>(&body).ok();
        let registry_message = parsed.and_then(|body| {
            let first = body.pointer("/errors/0/message")?.as_str()?;
            let plain = |c: &char| !c.is_control();
            Some(first.chars().filter(plain).take(200).collect::<String>())
        });
        match (status, registry_message) {
            (StatusCode::NOT_FOUND, _) => bail!(
                "{} has no such repository, tag or blob ({status})",
                self.registry_name
            ),
            (_, Some(why)) => bail!("{} returned an error: {why} ({status})", self.registry_name),
            (_, None) => bail!("{} responded with {status}", self.registry_name),
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
