//! The address of a bucket, and the client for it.
//!
//! The client of the SDK gets rustls with ring, as every other connection of weir, and not the TLS library that the SDK would bring.
//! Checksums are computed only where the protocol requires them: many S3 servers reject the trailing checksums that the SDK sends by
//! default. Uploads and components are verified by their hash when they are read.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts of a request, with exponential backoff and jitter between them.
const MAX_ATTEMPTS: u32 = 4;
/// Maximum delay before the second attempt. Each further delay is twice as long. A job has further attempts of its own.
const INITIAL_BACKOFF: Duration = Duration::from_millis(250);
/// The region if neither the settings nor the environment name one. S3 servers that have no regions accept it.
const DEFAULT_REGION: &str = "us-east-1";

/// A bucket and the prefix of all keys in it, written `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Location {
    pub(super) bucket: String,
    /// Empty, or without a slash at its ends.
    pub(super) prefix: String,
}

/// The text is not the location of objects on an S3 server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an S3 location: give s3://bucket or s3://bucket/prefix, with letters, digits, '.', '-' and '_'"
)]
pub struct S3LocationError(String);

impl FromStr for S3Location {
    type Err = S3LocationError;
    fn from_str(text: &str) -> Result<Self, S3LocationError> {
        let wrong = || S3LocationError(text.to_owned());
        let location = text.strip_prefix("s3://").ok_or_else(wrong)?;
        let location = location.strip_suffix('/').unwrap_or(location);
        let (bucket, prefix) = location.split_once('/').unwrap_or((location, ""));
        let is_valid_segment = |segment: &str| {
            let is_valid_byte = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            !segment.is_empty() && !segment.bytes().all(|b| b == b'.') && segment.bytes().all(is_valid_byte)
        };
        let has_prefix = location.contains('/');
        if is_valid_segment(bucket) && (!has_prefix || prefix.split('/').all(is_valid_segment)) {
            Ok(Self {
                bucket: bucket.to_owned(),
                prefix: prefix.to_owned(),
            })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

/// How the server encrypts objects that it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerSideEncryption {
    /// As the bucket's own configuration says.
    BucketDefault,
    /// With keys of the server (`AES256`).
    S3Keys,
    /// With the default key of the bucket in the key management service (`aws:kms`).
    KmsKey,
}

/// An access key with its secret.
#[derive(Clone)]
pub struct S3Credentials {
    /// The access key.
    pub access_key: String,
    /// The secret of the access key.
    pub secret_key: String,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret must not be logged.
        f.debug_struct("S3Credentials").finish_non_exhaustive()
    }
}

/// A bucket on an S3 server and how to reach it.
#[derive(Debug, Clone)]
pub struct S3Connection {
    /// The bucket and the prefix of keys.
    pub location: S3Location,
    /// URL of the server. `None`: AWS.
    pub endpoint: Option<String>,
    /// The region. `None`: the region of the environment or the profile, or else `us-east-1`.
    pub region: Option<String>,
    /// Whether the bucket is in the path of the URL and not in the name of the host.
    pub path_style: bool,
    /// The credentials. `None`: those of the SDK's standard chain, which are environment, profile, web identity, container and instance.
    pub credentials: Option<S3Credentials>,
    /// How the server encrypts objects.
    pub server_side_encryption: ServerSideEncryption,
    /// Maximum bytes of uploads and components that are cached in the data folder. Files in use can exceed it.
    pub max_cache_bytes: u64,
    /// Maximum bytes that one request copies on the server, 5 MiB to 5 GiB. Larger objects are copied in parts of this size.
    pub max_copy_bytes: u64,
    /// Maximum time of one attempt of a request.
    pub attempt_timeout: Duration,
}

impl S3Connection {
    /// The usual maximum time of one attempt of a request. A part of a large file must be transferred within it.
    pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

    /// The usual maximum of bytes that one request copies. A server must copy them within [`ATTEMPT_TIMEOUT`](Self::ATTEMPT_TIMEOUT).
    pub const MAX_COPY_BYTES: u64 = 256 << 20;

    pub(super) async fn build_client(&self) -> aws_sdk_s3::Client {
        let http_client = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(self.attempt_timeout)
            .build();
        let retries = RetryConfig::standard()
            .with_max_attempts(MAX_ATTEMPTS)
            .with_initial_backoff(INITIAL_BACKOFF);
        let region = RegionProviderChain::first_try(self.region.clone().map(Region::new))
            .or_default_provider()
            .or_else(DEFAULT_REGION);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client)
            .timeout_config(timeouts)
            .retry_config(retries)
            .region(region);
        if let Some(S3Credentials {
            access_key,
            secret_key,
        }) = &self.credentials
        {
            loader =
                loader.credentials_provider(Credentials::new(access_key, secret_key, None, None, "given"));
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared)
            .force_path_style(self.path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::presigning::PresigningConfig;

    use super::*;

    #[test]
    fn location_is_parsed_with_and_without_a_prefix() {
        for (text, bucket, prefix) in [
            ("s3://documents", "documents", ""),
            ("s3://documents/", "documents", ""),
            ("s3://documents/weir", "documents", "weir"),
            ("s3://documents/a/b-c_d.e/", "documents", "a/b-c_d.e"),
        ] {
            let location: S3Location = text.parse().unwrap();
            assert_eq!(
                (location.bucket.as_str(), location.prefix.as_str()),
                (bucket, prefix)
            );
            assert_eq!(location.to_string(), text.trim_end_matches('/'));
        }
    }

    /// Returns the URL of an object as the client requests it.
    async fn object_url(endpoint: Option<&str>, region: Option<&str>, path_style: bool) -> String {
        let connection = S3Connection {
            location: "s3://documents".parse().unwrap(),
            endpoint: endpoint.map(str::to_owned),
            region: region.map(str::to_owned),
            path_style,
            credentials: Some(S3Credentials {
                access_key: "key".into(),
                secret_key: "secret".into(),
            }),
            server_side_encryption: ServerSideEncryption::BucketDefault,
            max_cache_bytes: 0,
            max_copy_bytes: S3Connection::MAX_COPY_BYTES,
            attempt_timeout: S3Connection::ATTEMPT_TIMEOUT,
        };
        let request = connection.build_client().await.get_object();
        let valid = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let signed = request.bucket("documents").key("a/b").presigned(valid).await;
        signed.unwrap().uri().to_owned()
    }

    #[tokio::test]
    async fn url_follows_endpoint_region_and_style() {
        for (endpoint, region, path_style, start) in [
            (
                None,
                Some("eu-central-1"),
                false,
                "https://documents.s3.eu-central-1.amazonaws.com/a/b?",
            ),
            (
                None,
                Some("eu-central-1"),
                true,
                "https://s3.eu-central-1.amazonaws.com/documents/a/b?",
            ),
            (
                Some("http://minio:9000"),
                None,
                true,
                "http://minio:9000/documents/a/b?",
            ),
            (
                Some("https://s3.example.com"),
                Some("x"),
                false,
                "https://documents.s3.example.com/a/b?",
            ),
        ] {
            let url = object_url(endpoint, region, path_style).await;
            assert!(url.starts_with(start), "{url}");
            if let Some(region) = region {
                assert!(url.contains(&format!("%2F{region}%2Fs3%2F")), "{url}");
            }
        }
    }

    #[test]
    fn malformed_location_is_rejected() {
        for text in [
            "",
            "s3://",
            "s3:///x",
            "documents",
            "http://documents",
            "s3://a//b",
            "s3://a/..",
            "s3://a/b c",
            "s3://a/%41",
            "s3://ä",
        ] {
            assert!(text.parse::<S3Location>().is_err(), "{text:?}");
        }
    }
}
