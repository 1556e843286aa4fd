//! Requests to URLs that clients give: documents to be fetched, and webhooks.
//!
//! Only `http` and `https`, no credentials, only public addresses, no proxy (it would connect for us, past the check), no
//! redirect that was not looked at. A host on which certificates cannot be verified sends nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, header};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt;
use url::Url;
use weir_core::settings::Settings;

use crate::addresses::{NotPublic, PublicResolver, judge};
use crate::webhook::{Letter, Post};

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// A request that was not sent, or not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OutboundError {
    /// No URL of the kind that is taken.
    #[error("'{url}' cannot be used: {reason}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It may not be reached.
    #[error("{host} cannot be used: {NotPublic}")]
    NotPublic {
        /// The host.
        host: String,
    },
    /// No answer, or not a good one.
    #[error("{host} {reason}")]
    Answer {
        /// The host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// This host can send nothing.
    #[error("this host cannot verify certificates: {0}")]
    Certificates(String),
}

/// Sends requests.
pub(crate) struct Outbound {
    client: Result<Client, String>,
    private: bool,
}

impl Outbound {
    /// As the settings say.
    pub(crate) fn new(settings: &Settings) -> Self {
        let private = settings.server_fetch_private;
        Self {
            client: client(private),
            private,
        }
    }

    /// A URL that a request may be sent to, as far as can be told before its name is resolved.
    pub(crate) fn url(&self, text: &str) -> Result<Url, OutboundError> {
        let wrong = |reason| OutboundError::Url {
            url: text.chars().take(200).collect(),
            reason,
        };
        let url = Url::parse(text).map_err(|_| wrong("it is no URL"))?;
        self.allowed(&url)?;
        Ok(url)
    }

    fn allowed(&self, url: &Url) -> Result<(), OutboundError> {
        let wrong = |reason| OutboundError::Url {
            url: format!("{}://{}", url.scheme(), host_of(url)),
            reason,
        };
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("give one with http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("it has a user name or password"));
        }
        let host = url.host().ok_or_else(|| wrong("it names no host"))?;
        if self.private {
            return Ok(());
        }
        judge(&host).map_err(|NotPublic| OutboundError::NotPublic { host: host_of(url) })
    }

    /// The client, for a request to a URL from [`Self::url`]. It follows no redirects.
    fn client(&self) -> Result<&Client, OutboundError> {
        self.client
            .as_ref()
            .map_err(|reason| OutboundError::Certificates(reason.clone()))
    }

    /// What is at a URL from [`Self::url`], after redirects that were each looked at in the same way.
    pub(crate) async fn get(&self, url: &Url) -> Result<Response, OutboundError> {
        let client = self.client()?;
        let mut url = url.clone();
        for _ in 0..=REDIRECTS {
            let answer = client
                .get(url.clone())
                .send()
                .await
                .map_err(|error| failed(&url, &error))?;
            match answer.status() {
                StatusCode::OK => return Ok(answer),
                status if status.is_redirection() => url = self.next(&url, &answer)?,
                status => return Err(answered(&url, format!("answered with {status}"))),
            }
        }
        Err(answered(
            &url,
            format!("leads further after {REDIRECTS} redirects"),
        ))
    }

    fn next(&self, url: &Url, answer: &Response) -> Result<Url, OutboundError> {
        let location = answer
            .headers()
            .get(header::LOCATION)
            .and_then(|value| value.to_str().ok());
        let next = location.and_then(|location| url.join(location).ok());
        let next = next.ok_or_else(|| answered(url, "redirects to nowhere".into()))?;
        self.allowed(&next)?;
        Ok(next)
    }
}

#[async_trait]
impl Post for Outbound {
    /// A redirect is an answer like any other: a webhook goes where it was told to.
    async fn post(&self, letter: &Letter) -> Result<u16, String> {
        let sent = async {
            let url = self.url(&letter.url)?;
            let request = self
                .client()?
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .header("weir-signature", &letter.signature)
                .header("weir-delivery", &letter.delivery)
                .body(letter.body.clone());
            request.send().await.map_err(|error| failed(&url, &error))
        };
        sent.await
            .map(|answer| answer.status().as_u16())
            .map_err(|error: OutboundError| error.to_string())
    }
}

fn client(private: bool) -> Result<Client, String> {
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
        .connect_timeout(CONNECT)
        // A kept connection was judged when it was made, but its name may lead elsewhere by now.
        .pool_max_idle_per_host(0);
    let builder = if private {
        builder
    } else {
        builder.dns_resolver(PublicResolver::shared())
    };
    builder.build().map_err(|error| error.to_string())
}

/// An error of a request, without what only whoever looks for open ports would want to know.
pub(crate) fn failed(url: &Url, error: &reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NotPublic>() {
            return OutboundError::NotPublic { host: host_of(url) };
        }
        cause = error.source();
    }
    let reason = if error.is_timeout() {
        "did not answer in time"
    } else if error.is_connect() {
        "cannot be reached, or its certificate cannot be verified"
    } else {
        "broke off"
    };
    answered(url, reason.into())
}

pub(crate) fn answered(url: &Url, reason: String) -> OutboundError {
    OutboundError::Answer {
        host: host_of(url),
        reason,
    }
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;

    fn outbound(private: bool) -> Outbound {
        let settings = Settings {
            server_fetch_private: private,
            ..Settings::default()
        };
        Outbound::new(&settings)
    }

    /// A server on this machine.
    async fn serve() -> String {
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

    async fn fetched(outbound: &Outbound, url: &str) -> Result<String, OutboundError> {
        let url = outbound.url(url)?;
        Ok(outbound.get(&url).await?.text().await.unwrap())
    }

    #[test]
    fn only_urls_that_lead_out_are_taken() {
        let outbound = outbound(false);
        for url in [
            "https://example.com/a.pdf",
            "http://example.com:8080/",
            "https://1.1.1.1/",
        ] {
            assert!(outbound.url(url).is_ok(), "{url}");
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
            let error = outbound.url(url).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn redirects_are_followed_so_far_and_looked_at() {
        let (server, outbound) = (serve().await, outbound(true));
        for path in ["/file", "/once"] {
            assert_eq!(
                fetched(&outbound, &format!("{server}{path}")).await.unwrap(),
                "content"
            );
        }
        for (path, part) in [
            ("/around", "5 redirects"),
            ("/scheme", "http or https"),
            ("/login", "user name"),
            ("/nothing", "404"),
        ] {
            let error = fetched(&outbound, &format!("{server}{path}"))
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_reached() {
        let (server, outbound) = (serve().await, outbound(false));
        let by_name = server.replace("127.0.0.1", "localhost");
        let error = fetched(&outbound, &format!("{by_name}/file")).await.unwrap_err();
        assert_eq!(
            error,
            OutboundError::NotPublic {
                host: "localhost".into()
            }
        );
    }

    #[tokio::test]
    async fn a_redirect_inwards_is_not_followed() {
        let (outbound, from) = (outbound(false), Url::parse("https://example.com/a").unwrap());
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
                outbound.next(&from, &Response::from(redirect)).is_err(),
                "{location}"
            );
        }
        let redirect = axum::http::Response::builder()
            .header(header::LOCATION, "../b")
            .body("")
            .unwrap();
        let next = outbound.next(&from, &Response::from(redirect)).unwrap();
        assert_eq!(next.as_str(), "https://example.com/b");
    }
}
