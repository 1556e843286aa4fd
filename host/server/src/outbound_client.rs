//! An HTTP client for URLs that clients supply: documents to fetch, and webhooks.
//!
//! It accepts only `http` and `https` URLs without credentials, and connects only to public addresses. It uses no proxy, because a
//! proxy would connect without the address check. It checks the target of every redirect. A host that cannot verify certificates
//! sends no requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, header};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;
use weir_control::webhook::{WebhookRequest, WebhookSender};
use weir_core::settings::Settings;

use crate::public_addresses::{NotPublicError, PublicAddressResolver, check_literal_host_is_public};

/// The maximum number of redirects that a fetch follows.
const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An outbound request that was not sent, or that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutboundError {
    /// The URL is malformed or not allowed.
    #[error("'{url}' cannot be used: {reason}")]
    InvalidUrl {
        /// The URL, shortened or without its credentials and path.
        url: String,
        /// What is wrong with the URL.
        reason: &'static str,
    },
    /// The host has no public address.
    #[error("{host} cannot be used: {NotPublicError}")]
    NotPublic {
        /// The host.
        host: String,
    },
    /// The request failed, or the response has an unexpected status.
    #[error("{host} {reason}")]
    RequestFailed {
        /// The host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// This host cannot verify certificates, so it sends no requests.
    #[error("this host cannot verify certificates: {0}")]
    NoCertificateVerifier(String),
}

/// Sends HTTP requests to URLs that clients supply.
pub(crate) struct OutboundClient {
    http_client: Result<Client, String>,
    allow_private_addresses: bool,
}

impl OutboundClient {
    /// Creates a client from the settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        let private = settings.server_allow_client_urls_to_private_addresses;
        Self {
            http_client: build_http_client(private),
            allow_private_addresses: private,
        }
    }

    /// Parses a URL and checks that requests to it are allowed, as far as is known before its host name is resolved.
    pub(crate) fn parse_allowed_url(&self, text: &str) -> Result<Url, OutboundError> {
        let wrong = |reason| OutboundError::InvalidUrl {
            url: text.chars().take(200).collect(),
            reason,
        };
        let url = Url::parse(text).map_err(|_| wrong("it is not a URL"))?;
        self.check_url_is_allowed(&url)?;
        Ok(url)
    }

    fn check_url_is_allowed(&self, url: &Url) -> Result<(), OutboundError> {
        let wrong = |reason| OutboundError::InvalidUrl {
            url: format!("{}://{}", url.scheme(), url_host(url)),
            reason,
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("its scheme must be http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it has a user name or password"));
        }
        let host = url.host().ok_or_else(|| wrong("it has no host"))?;
        if self.allow_private_addresses {
            return Ok(());
        }
        check_literal_host_is_public(&host)
            .map_err(|NotPublicError| OutboundError::NotPublic { host: url_host(url) })
    }

    /// Returns the HTTP client for a request to a URL from [`Self::parse_allowed_url`]. The client follows no redirects.
    fn require_http_client(&self) -> Result<&Client, OutboundError> {
        self.http_client
            .as_ref()
            .map_err(|reason| OutboundError::NoCertificateVerifier(reason.clone()))
    }

    /// Fetches a URL from [`Self::parse_allowed_url`]. It follows redirects, and checks each of their targets in the same way.
    pub(crate) async fn fetch_url(&self, url: &Url) -> Result<Response, OutboundError> {
        let client = self.require_http_client()?;
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = client
                .get(url.clone())
                .send()
                .await
                .map_err(|error| convert_reqwest_error(&url, &error))?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => url = self.resolve_redirect(&url, &response)?,
                status => return Err(request_failed_error(&url, format!("responded with {status}"))),
            }
        }
        Err(request_failed_error(
            &url,
            format!("sent more than {MAX_REDIRECTS} redirects"),
        ))
    }

    fn resolve_redirect(&self, url: &Url, response: &Response) -> Result<Url, OutboundError> {
        let location = response
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let next =
            next.ok_or_else(|| request_failed_error(url, "sent a redirect without a valid location".into()))?;
        self.check_url_is_allowed(&next)?;
        Ok(next)
    }
}

#[async_trait]
impl WebhookSender for OutboundClient {
    /// Sends a webhook. It does not follow redirects: a redirect counts as a response like any other.
    async fn send_webhook(&self, webhook: &WebhookRequest) -> Result<u16, String> {
        let sent = async {
            let url = self.parse_allowed_url(&webhook.url)?;
            let request = self
                .require_http_client()?
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .header("weir-signature", &webhook.signature)
                .header("weir-delivery", &webhook.delivery_id)
                .body(webhook.body.clone());
            request
                .send()
                .await
                .map_err(|error| convert_reqwest_error(&url, &error))
        };
        sent.await
            .map(|response| response.status().as_u16())
            .map_err(|error: OutboundError| error.to_string())
    }
}

fn build_http_client(private: bool) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(BuilderVerifierExt::with_platform_verifier)
        .map_err(|error| error.to_string())?
        .with_no_client_auth();
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        // The address check happens when a connection is made. A pooled connection would skip it.
        .pool_max_idle_per_host(0);
    let builder = if private {
        builder
    } else {
        builder.dns_resolver(PublicAddressResolver::new_shared())
    };
    builder.build().map_err(|error| error.to_string())
}

/// Converts the error of a request. It leaves out the details that would help someone scan for open ports.
pub(crate) fn convert_reqwest_error(url: &Url, error: &reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotPublicError>() {
            return OutboundError::NotPublic { host: url_host(url) };
        }
        cause = error.source();
    }
    let reason = if error.is_timeout() {
        "did not respond in time"
    } else if error.is_connect() {
        "cannot be reached, or its certificate cannot be verified"
    } else {
        "closed the connection before the response was complete"
    };
    request_failed_error(url, reason.into())
}

pub(crate) fn request_failed_error(url: &Url, reason: String) -> OutboundError {
    OutboundError::RequestFailed {
        host: url_host(url),
        reason,
    }
}

fn url_host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;

    fn test_client(private: bool) -> OutboundClient {
        let settings = Settings {
            server_allow_client_urls_to_private_addresses: private,
            ..Settings::default()
        };
        OutboundClient::new(&settings)
    }

    /// Starts a server on the loopback address and returns its URL.
    async fn start_test_server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/file", get(|| async { "content" }))
            .route("/once", get(|| async { Redirect::temporary("/file") }))
            .route("/around", get(|| async { Redirect::temporary("/around") }))
            .route(
                "/scheme",
                get(|| async { Redirect::temporary("file:///etc/passwd") }),
            )
            .route(
                "/login",
                get(|| async { Redirect::temporary("http://a:b@127.0.0.1/") }),
            );
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    async fn fetch_text(outbound: &OutboundClient, url: &str) -> Result<String, OutboundError> {
        let url = outbound.parse_allowed_url(url)?;
        Ok(outbound.fetch_url(&url).await?.text().await.unwrap())
    }

    #[test]
    fn only_public_http_urls_are_accepted() {
        let outbound = test_client(false);
        for url in [
            "https://example.com/a.pdf",
            "http://example.com:8080/",
            "https://1.1.1.1/",
        ] {
            assert!(outbound.parse_allowed_url(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "a.pdf",
            "file:///etc/passwd",
            "ftp://example.com/a.pdf",
            "gopher://example.com/",
            "data:application/pdf,x",
            "https://user@example.com/",
            "https://user:hunter2@example.com/",
            "http://127.0.0.1/",
            "http://[::1]:7070/",
            "http://169.254.169.254/latest/meta-data",
        ] {
            let error = outbound.parse_allowed_url(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn redirects_are_checked_and_their_number_is_limited() {
        let (server, outbound) = (start_test_server().await, test_client(true));
        for path in ["/file", "/once"] {
            assert_eq!(
                fetch_text(&outbound, &format!("{server}{path}")).await.unwrap(),
                "content"
            );
        }
        for (path, part) in [
            ("/around", "5 redirects"),
            ("/scheme", "http or https"),
            ("/login", "user name"),
            ("/nothing", "404"),
        ] {
            let error = fetch_text(&outbound, &format!("{server}{path}"))
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn host_name_with_a_loopback_address_is_refused() {
        let (server, outbound) = (start_test_server().await, test_client(false));
        let named_server = server.replace("127.0.0.1", "localhost");
        let error = fetch_text(&outbound, &format!("{named_server}/file"))
            .await
            .unwrap_err();
        assert_eq!(
            error,
            OutboundError::NotPublic {
                host: "localhost".into()
            }
        );
    }

    #[tokio::test]
    async fn redirect_to_a_private_address_is_refused() {
        let (outbound, from) = (test_client(false), Url::parse("https://example.com/a").unwrap());
        for location in [
            "http://169.254.169.254/",
            "http://b@example.com/",
            "//10.0.0.1/x",
            "http://[::1]/",
            "file:///x",
        ] {
            let redirect = axum::http::Response::builder()
                .header(header::LOCATION, location)
                .body("")
                .unwrap();
            assert!(
                outbound
                    .resolve_redirect(&from, &Response::from(redirect))
                    .is_err(),
                "{location}"
            );
        }
        let redirect = axum::http::Response::builder()
            .header(header::LOCATION, "../b")
            .body("")
            .unwrap();
        let next = outbound
            .resolve_redirect(&from, &Response::from(redirect))
            .unwrap();
        assert_eq!(next.as_str(), "https://example.com/b");
    }
}
