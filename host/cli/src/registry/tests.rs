//! Tests of the registry client with a fake registry over real HTTP.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use parking_lot::Mutex;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use weir_core::component::ComponentDigest;

use super::client::{PlainHttpArg, RegistryClient};
use super::credentials::Credentials;
use super::reference::ArtifactReference;

/// The smallest component: a header and nothing in it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// The protocol violation or access rule of the fake registry.
#[derive(Clone, Copy, PartialEq)]
enum RegistryFault {
    None,
    /// Returns other bytes of the same length.
    OtherBytes,
    /// Returns an endless body without a stated length.
    Endless,
    /// Returns more bytes than the manifest states.
    Longer,
    /// Redirects requests of blobs to this URL.
    RedirectsBlobs(&'static str),
    /// Returns a manifest with another digest than requested.
    OtherManifest,
    /// Requires a token from this URL. `{}` is the registry's own address.
    RequiresToken(&'static str),
    /// Requires a user and a password.
    RequiresPassword,
    /// Requires a user and a password, and redirects requests of blobs to this URL.
    RequiresPasswordAndRedirectsBlobs(&'static str),
}

struct FakeRegistry {
    fault: RegistryFault,
    address: String,
    blobs: Mutex<HashMap<String, Bytes>>,
    manifests: Mutex<HashMap<String, Bytes>>,
    /// Received requests: method with path, and the `Authorization` header.
    received_requests: Mutex<Vec<(String, String)>>,
}

async fn start_registry(fault: RegistryFault) -> Arc<FakeRegistry> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let registry = Arc::new(FakeRegistry {
        fault,
        address: listener.local_addr().unwrap().to_string(),
        blobs: Mutex::default(),
        manifests: Mutex::default(),
        received_requests: Mutex::default(),
    });
    let router = Router::new()
        .fallback(handle_request)
        .with_state(Arc::clone(&registry));
    tokio::spawn(async move { axum::serve(listener, router).await });
    registry
}

async fn handle_request(State(registry): State<Arc<FakeRegistry>>, request: Request) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    registry
        .received_requests
        .lock()
        .push((format!("{method} {path}?{query}"), authorization.clone()));
    if path == "/token" {
        return json!({ "token": "of-the-realm" }).to_string().into_response();
    }
    let challenge = match registry.fault {
        RegistryFault::RequiresToken(realm) if authorization != "Bearer of-the-realm" => {
            let realm = realm.replace("{}", &registry.address);
            Some(format!(
                "Bearer realm=\"{realm}\",service=\"the shop\",scope=\"repository:other:pull,push,delete\""
            ))
        }
        RegistryFault::RequiresPassword | RegistryFault::RequiresPasswordAndRedirectsBlobs(_)
            if authorization != "Basic dTpw" =>
        {
            Some("Basic realm=\"shop\"".to_owned())
        }
        _ => None,
    };
    if let Some(challenge) = challenge {
        return (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let last = path.rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "POST" => (StatusCode::ACCEPTED, [(LOCATION, format!("{path}one?state=x"))]).into_response(),
        "PUT" if path.contains("/uploads/") => {
            let digest = query
                .rsplit("digest=")
                .next()
                .unwrap_or_default()
                .replace("%3A", ":");
            assert_eq!(digest, ComponentDigest::from_content(&body).to_string());
            registry.blobs.lock().insert(digest, body);
            StatusCode::CREATED.into_response()
        }
        "PUT" => {
            registry
                .manifests
                .lock()
                .insert(ComponentDigest::from_content(&body).to_string(), body.clone());
            registry.manifests.lock().insert(last, body);
            StatusCode::CREATED.into_response()
        }
        _ if path.contains("/manifests/") => {
            let found = registry.manifests.lock().get(&last).cloned();
            match (found, registry.fault) {
                (Some(manifest), RegistryFault::OtherManifest) => {
                    [&manifest[..], b" "].concat().into_response()
                }
                (Some(manifest), _) => manifest.into_response(),
                (None, _) => {
                    let error_body =
                        json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "no such thing" }] });
                    (StatusCode::NOT_FOUND, error_body.to_string()).into_response()
                }
            }
        }
        "HEAD" => match registry.blobs.lock().contains_key(&last) {
            true => StatusCode::OK.into_response(),
            false => StatusCode::NOT_FOUND.into_response(),
        },
        _ => {
            let blob = registry.blobs.lock().get(&last).cloned().unwrap_or_default();
            match registry.fault {
                RegistryFault::OtherBytes => vec![0; blob.len()].into_response(),
                RegistryFault::Longer => vec![0; blob.len() + 1].into_response(),
                RegistryFault::Endless => {
                    let zeros =
                        stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096])));
                    Body::from_stream(zeros).into_response()
                }
                RegistryFault::RedirectsBlobs(target_url)
                | RegistryFault::RequiresPasswordAndRedirectsBlobs(target_url) => {
                    let location = target_url.replace("{}", &registry.address);
                    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)]).into_response()
                }
                _ => blob.into_response(),
            }
        }
    }
}

fn reference_in(registry: &FakeRegistry, rest: &str) -> ArtifactReference {
    format!("{}/team/router{rest}", registry.address).parse().unwrap()
}

fn registry_client(registry: &FakeRegistry, login: Option<&str>) -> RegistryClient {
    let credentials = login.map(|login| {
        let (user, secret) = login.split_once(':').unwrap();
        Credentials::new(user.into(), secret.into()).unwrap()
    });
    RegistryClient::new_with_credentials(&reference_in(registry, ""), PlainHttpArg::default(), credentials)
        .unwrap()
}

/// Creates a fake registry with a published component and this fault.
async fn start_faulty_registry(fault: RegistryFault) -> Arc<FakeRegistry> {
    let faultless_registry = start_registry(RegistryFault::None).await;
    let reference = reference_in(&faultless_registry, ":1");
    registry_client(&faultless_registry, None)
        .publish(&reference, EMPTY_COMPONENT.to_vec())
        .await
        .unwrap();
    let faulty_registry = start_registry(fault).await;
    *faulty_registry.blobs.lock() = faultless_registry.blobs.lock().clone();
    *faulty_registry.manifests.lock() = faultless_registry.manifests.lock().clone();
    faulty_registry
}

async fn pull_error(fault: RegistryFault, rest: &str) -> String {
    let registry = start_faulty_registry(fault).await;
    let pulled = registry_client(&registry, None)
        .pull(&reference_in(&registry, rest))
        .await;
    format!("{:#}", pulled.err().expect("the pull must fail"))
}

#[tokio::test]
async fn published_component_is_pulled_by_tag_and_digest() {
    let shop = start_registry(RegistryFault::None).await;
    let client = registry_client(&shop, None);
    let digest = client
        .publish(&reference_in(&shop, ":1"), EMPTY_COMPONENT.to_vec())
        .await
        .unwrap();
    for rest in [":1".to_owned(), format!("@{digest}"), format!(":gone@{digest}")] {
        let pulled = client.pull(&reference_in(&shop, &rest)).await.unwrap();
        assert_eq!(
            (pulled.component.as_slice(), pulled.manifest_digest),
            (EMPTY_COMPONENT, digest),
            "{rest}"
        );
    }
    // The exact layout of the artifact.
    let manifest: Value = serde_json::from_slice(&shop.manifests.lock()["1"]).unwrap();
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = shop.blobs.lock()[manifest["config"]["digest"].as_str().unwrap()].clone();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["layerDigests"],
        json!([ComponentDigest::from_content(EMPTY_COMPONENT)])
    );
    assert_eq!(
        (&config["architecture"], &config["os"]),
        (&json!("wasm"), &json!("wasip2"))
    );
    // The same component again is the same artifact, and its bytes are not sent again.
    let request_count = shop.received_requests.lock().len();
    let again = client
        .publish(&reference_in(&shop, ":2"), EMPTY_COMPONENT.to_vec())
        .await
        .unwrap();
    assert_eq!(again, digest);
    assert_eq!(
        shop.received_requests.lock().len() - request_count,
        3,
        "two HEAD requests and the manifest"
    );
    let missing = client.pull(&reference_in(&shop, ":3")).await.err().unwrap();
    assert!(
        format!("{missing:#}").contains("has no such repository, tag or blob"),
        "{missing:#}"
    );
    let module = client
        .publish(&reference_in(&shop, ":4"), b"\0asm\x01\0\0\0".to_vec())
        .await;
    assert!(format!("{:#}", module.unwrap_err()).contains("it is no component"));
}

#[tokio::test]
async fn false_registry_responses_are_rejected() {
    for (fault, rest, part) in [
        (RegistryFault::OtherBytes, ":1", "other bytes"),
        (RegistryFault::Endless, ":1", "exceeds 8 bytes"),
        (RegistryFault::Longer, ":1", "exceeds 8 bytes"),
        (
            RegistryFault::RedirectsBlobs("http://localhost:1/"),
            ":1",
            "without TLS",
        ),
        (
            RegistryFault::RedirectsBlobs("http://169.254.169.254/latest"),
            ":1",
            "without TLS",
        ),
        (
            RegistryFault::RedirectsBlobs("file:///etc/passwd"),
            ":1",
            "without TLS",
        ),
        (
            RegistryFault::RedirectsBlobs("https://u:p@a.example/"),
            ":1",
            "a user or a password",
        ),
        (
            RegistryFault::RedirectsBlobs("/v2/around"),
            ":1",
            "more than 5 times",
        ),
        (
            RegistryFault::RequiresToken("http://a.example/token"),
            ":1",
            "without TLS",
        ),
        (RegistryFault::RequiresToken("/token"), ":1", "not a valid URL"),
    ] {
        let error = pull_error(fault, rest).await;
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    let registry = start_faulty_registry(RegistryFault::OtherManifest).await;
    let digest = ComponentDigest::from_content(&registry.manifests.lock()["1"]);
    let pulled = registry_client(&registry, None)
        .pull(&reference_in(&registry, &format!("@{digest}")))
        .await;
    let error = format!("{:#}", pulled.err().unwrap());
    assert!(error.contains("the manifest's digest is"), "{error}");
}

#[tokio::test]
async fn manifest_that_is_no_component_is_rejected() {
    let layer = |kind: &str, size: u64| json!({ "mediaType": kind, "digest": format!("sha256:{}", "0".repeat(64)), "size": size });
    for (layers, part) in [
        (
            json!([layer("application/vnd.oci.image.layer.v1.tar+gzip", 8)]),
            "a component has the type application/wasm",
        ),
        (json!([]), "0 layers"),
        (
            json!([layer("application/wasm", 8), layer("application/wasm", 8)]),
            "2 layers",
        ),
        (
            json!([layer("application/wasm", u64::MAX)]),
            "accepts at most 67108864",
        ),
    ] {
        let registry = start_registry(RegistryFault::None).await;
        let manifest = json!({ "schemaVersion": 2, "config": layer("application/vnd.oci.empty.v1+json", 2), "layers": layers });
        registry
            .manifests
            .lock()
            .insert("1".into(), manifest.to_string().into());
        let pulled = registry_client(&registry, None)
            .pull(&reference_in(&registry, ":1"))
            .await;
        let error = format!("{:#}", pulled.err().unwrap());
        assert!(error.contains(part), "{error}");
        assert_eq!(
            registry.received_requests.lock().len(),
            1,
            "the layer must not be requested"
        );
    }
    let index = start_registry(RegistryFault::None).await;
    let manifests = json!({ "schemaVersion": 2, "manifests": [] });
    index
        .manifests
        .lock()
        .insert("1".into(), manifests.to_string().into());
    let error = registry_client(&index, None)
        .pull(&reference_in(&index, ":1"))
        .await
        .err()
        .unwrap();
    assert!(format!("{error:#}").contains("if it is an index"), "{error:#}");
}

#[tokio::test]
async fn token_is_requested_once_with_minimal_scope() {
    let registry = start_faulty_registry(RegistryFault::RequiresToken("http://{}/token")).await;
    let client = registry_client(&registry, Some("u:p"));
    client.pull(&reference_in(&registry, ":1")).await.unwrap();
    let requests = registry.received_requests.lock().clone();
    let tokens: Vec<_> = requests
        .iter()
        .filter(|(request, _)| request.starts_with("GET /token"))
        .collect();
    // The login is sent to the realm only, the token to the registry only, and the scope has only the needed rights.
    let expected = "GET /token?scope=repository%3Ateam%2Frouter%3Apull&service=the+shop";
    assert_eq!(tokens, [&(expected.to_owned(), "Basic dTpw".to_owned())]);
    let authorizations: Vec<&str> = requests
        .iter()
        .map(|(_, authorization)| authorization.as_str())
        .collect();
    assert_eq!(
        authorizations,
        ["", "Basic dTpw", "Bearer of-the-realm", "Bearer of-the-realm"]
    );
}

#[tokio::test]
async fn password_is_sent_only_to_the_registry_that_requests_it() {
    let registry = start_faulty_registry(RegistryFault::RequiresPassword).await;
    registry_client(&registry, Some("u:p"))
        .pull(&reference_in(&registry, ":1"))
        .await
        .unwrap();
    let none = registry_client(&registry, None)
        .pull(&reference_in(&registry, ":1"))
        .await
        .err()
        .unwrap();
    assert!(
        format!("{none:#}").contains("requires authentication"),
        "{none:#}"
    );
    let wrong = registry_client(&registry, Some("u:wrong"))
        .pull(&reference_in(&registry, ":1"))
        .await
        .err()
        .unwrap();
    let error = format!("{wrong:#}");
    assert!(error.contains("401") && !error.contains("wrong"), "{error}");

    // A redirect to another port does not get the password.
    let elsewhere = start_faulty_registry(RegistryFault::None).await;
    let far: &'static str =
        Box::leak(format!("http://{}/v2/team/router/blobs/x", elsewhere.address).into_boxed_str());
    let leading = start_faulty_registry(RegistryFault::RequiresPasswordAndRedirectsBlobs(far)).await;
    let _ = registry_client(&leading, Some("u:p"))
        .pull(&reference_in(&leading, ":1"))
        .await;
    let requests = leading.received_requests.lock().clone();
    assert!(
        requests
            .iter()
            .any(|(_, authorization)| authorization == "Basic dTpw"),
        "{requests:?}"
    );
    let requests = elsewhere.received_requests.lock().clone();
    assert!(
        requests.iter().any(|(request, _)| request.contains("/blobs/x")),
        "{requests:?}"
    );
    assert!(
        requests.iter().all(|(_, authorization)| authorization.is_empty()),
        "{requests:?}"
    );
}

#[test]
fn references_are_parsed_and_validated() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    for text in [
        "registry.example/team/router:1.2".to_owned(),
        "localhost/a".into(),
        "127.0.0.1:5000/a.b/c_d-e".into(),
        "[::1]:5000/a".into(),
        format!("registry.example:443/a@{digest}"),
        format!("registry.example/a:T_1@{digest}"),
    ] {
        let reference: ArtifactReference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        let with_scheme: ArtifactReference = format!("oci://{text}").parse().unwrap();
        assert_eq!(with_scheme, reference);
    }
    for wrong in [
        "",
        "router",
        "team/router:1",
        "registry.example/",
        "registry.example/A",
        "registry.example//a",
        "registry.example/../a",
        "registry.example/a:",
        "registry.example/a:-x",
        "registry.example/a@sha256:ab",
        "registry.example/a@md5:ab",
        "http://registry.example/a",
        "u:p@registry.example/a",
        "-a.example/b",
        "registry.example:99999/a",
        "registry.example/a?b",
        "registry.example/a#b",
    ] {
        assert!(wrong.parse::<ArtifactReference>().is_err(), "{wrong}");
    }
}
