//! A registry over real HTTP that says what each test has it say.

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

use super::client::{Access, Registry};
use super::credentials::Credentials;
use super::reference::Reference;

/// The smallest component: a header and nothing in it.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// What it answers with in place of the truth.
#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// Other bytes of the same length.
    OtherBytes,
    /// A body that never ends, of no stated length.
    Endless,
    /// More than the manifest says, with its length.
    Longer,
    /// Blobs are somewhere else.
    Leads(&'static str),
    /// A manifest of another digest than was asked for.
    OtherManifest,
    /// Wants a token, and names this place for it; `{}` is itself.
    Token(&'static str),
    /// Wants a user and a password.
    Password,
    /// The same, and blobs are somewhere else.
    PasswordLeads(&'static str),
}

struct Shop {
    lie: Lie,
    address: String,
    blobs: Mutex<HashMap<String, Bytes>>,
    manifests: Mutex<HashMap<String, Bytes>>,
    /// Methods and paths as they came, with what was shown.
    asked: Mutex<Vec<(String, String)>>,
}

async fn shop(lie: Lie) -> Arc<Shop> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shop = Arc::new(Shop {
        lie,
        address: listener.local_addr().unwrap().to_string(),
        blobs: Mutex::default(),
        manifests: Mutex::default(),
        asked: Mutex::default(),
    });
    let router = Router::new().fallback(answer).with_state(Arc::clone(&shop));
    tokio::spawn(async move { axum::serve(listener, router).await });
    shop
}

async fn answer(State(shop): State<Arc<Shop>>, request: Request) -> Response {
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    shop.asked
        .lock()
        .push((format!("{method} {path}?{query}"), shown.clone()));
    if path == "/token" {
        return json!({ "token": "of-the-realm" }).to_string().into_response();
    }
    let challenge = match shop.lie {
        Lie::Token(realm) if shown != "Bearer of-the-realm" => {
            let realm = realm.replace("{}", &shop.address);
            Some(format!(
                "Bearer realm=\"{realm}\",service=\"the shop\",scope=\"repository:other:pull,push,delete\""
            ))
        }
        Lie::Password | Lie::PasswordLeads(_) if shown != "Basic dTpw" => {
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
            assert_eq!(digest, ComponentDigest::of(&body).to_string());
            shop.blobs.lock().insert(digest, body);
            StatusCode::CREATED.into_response()
        }
        "PUT" => {
            shop.manifests
                .lock()
                .insert(ComponentDigest::of(&body).to_string(), body.clone());
            shop.manifests.lock().insert(last, body);
            StatusCode::CREATED.into_response()
        }
        _ if path.contains("/manifests/") => {
            let found = shop.manifests.lock().get(&last).cloned();
            match (found, shop.lie) {
                (Some(manifest), Lie::OtherManifest) => [&manifest[..], b" "].concat().into_response(),
                (Some(manifest), _) => manifest.into_response(),
                (None, _) => {
                    let said =
                        json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "no such thing" }] });
                    (StatusCode::NOT_FOUND, said.to_string()).into_response()
                }
            }
        }
        "HEAD" => match shop.blobs.lock().contains_key(&last) {
            true => StatusCode::OK.into_response(),
            false => StatusCode::NOT_FOUND.into_response(),
        },
        _ => {
            let blob = shop.blobs.lock().get(&last).cloned().unwrap_or_default();
            match shop.lie {
                Lie::OtherBytes => vec![0; blob.len()].into_response(),
                Lie::Longer => vec![0; blob.len() + 1].into_response(),
                Lie::Endless => {
                    let zeros =
                        stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 4096])));
                    Body::from_stream(zeros).into_response()
                }
                Lie::Leads(place) | Lie::PasswordLeads(place) => {
                    let place = place.replace("{}", &shop.address);
                    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, place)]).into_response()
                }
                _ => blob.into_response(),
            }
        }
    }
}

fn named(shop: &Shop, rest: &str) -> Reference {
    format!("{}/team/router{rest}", shop.address).parse().unwrap()
}

fn registry(shop: &Shop, login: Option<&str>) -> Registry {
    let credentials = login.map(|login| {
        let (user, secret) = login.split_once(':').unwrap();
        Credentials::new(user.into(), secret.into()).unwrap()
    });
    Registry::with(&named(shop, ""), Access::default(), credentials).unwrap()
}

/// A shop with a component in it, which then begins to lie.
async fn lying(lie: Lie) -> Arc<Shop> {
    let honest = shop(Lie::None).await;
    let reference = named(&honest, ":1");
    registry(&honest, None)
        .publish(&reference, COMPONENT.to_vec())
        .await
        .unwrap();
    let liar = shop(lie).await;
    *liar.blobs.lock() = honest.blobs.lock().clone();
    *liar.manifests.lock() = honest.manifests.lock().clone();
    liar
}

async fn refused(lie: Lie, rest: &str) -> String {
    let shop = lying(lie).await;
    let pulled = registry(&shop, None).pull(&named(&shop, rest)).await;
    format!("{:#}", pulled.err().expect("nothing that is true was said"))
}

#[tokio::test]
async fn what_was_published_is_pulled_by_tag_and_by_digest() {
    let shop = shop(Lie::None).await;
    let registry = registry(&shop, None);
    let digest = registry
        .publish(&named(&shop, ":1"), COMPONENT.to_vec())
        .await
        .unwrap();
    for rest in [":1".to_owned(), format!("@{digest}"), format!(":gone@{digest}")] {
        let pulled = registry.pull(&named(&shop, &rest)).await.unwrap();
        assert_eq!(
            (pulled.component.as_slice(), pulled.digest),
            (COMPONENT, digest),
            "{rest}"
        );
    }
    // The layout, word for word.
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
    assert_eq!(config["layerDigests"], json!([ComponentDigest::of(COMPONENT)]));
    assert_eq!(
        (&config["architecture"], &config["os"]),
        (&json!("wasm"), &json!("wasip2"))
    );
    // The same component again is the same artifact, and its bytes are not sent again.
    let asked = shop.asked.lock().len();
    let again = registry
        .publish(&named(&shop, ":2"), COMPONENT.to_vec())
        .await
        .unwrap();
    assert_eq!(again, digest);
    assert_eq!(shop.asked.lock().len() - asked, 3, "two looks and a manifest");
    let missing = registry.pull(&named(&shop, ":3")).await.err().unwrap();
    assert!(
        format!("{missing:#}").contains("has no such thing"),
        "{missing:#}"
    );
    let module = registry
        .publish(&named(&shop, ":4"), b"\0asm\x01\0\0\0".to_vec())
        .await;
    assert!(format!("{:#}", module.unwrap_err()).contains("it is no component"));
}

#[tokio::test]
async fn what_a_registry_says_is_not_believed() {
    for (lie, rest, part) in [
        (Lie::OtherBytes, ":1", "other bytes"),
        (Lie::Endless, ":1", "more than the 8 bytes"),
        (Lie::Longer, ":1", "more than the 8 bytes"),
        (Lie::Leads("http://localhost:1/"), ":1", "not as safe as itself"),
        (
            Lie::Leads("http://169.254.169.254/latest"),
            ":1",
            "not as safe as itself",
        ),
        (Lie::Leads("file:///etc/passwd"), ":1", "not as safe as itself"),
        (Lie::Leads("https://u:p@a.example/"), ":1", "a user or a password"),
        (Lie::Leads("/v2/around"), ":1", "after 5 redirects"),
        (
            Lie::Token("http://a.example/token"),
            ":1",
            "not as safe as itself",
        ),
        (Lie::Token("/token"), ":1", "no URL"),
    ] {
        let said = refused(lie, rest).await;
        assert!(said.contains(part) && said.lines().count() == 1, "{said}");
    }
    let shop = lying(Lie::OtherManifest).await;
    let digest = ComponentDigest::of(&shop.manifests.lock()["1"]);
    let pulled = registry(&shop, None)
        .pull(&named(&shop, &format!("@{digest}")))
        .await;
    let said = format!("{:#}", pulled.err().unwrap());
    assert!(said.contains("another manifest"), "{said}");
}

#[tokio::test]
async fn a_manifest_of_something_else_is_none() {
    let layer = |kind: &str, size: u64| json!({ "mediaType": kind, "digest": format!("sha256:{}", "0".repeat(64)), "size": size });
    for (layers, part) in [
        (
            json!([layer("application/vnd.oci.image.layer.v1.tar+gzip", 8)]),
            "a component is application/wasm",
        ),
        (json!([]), "0 layers"),
        (
            json!([layer("application/wasm", 8), layer("application/wasm", 8)]),
            "2 layers",
        ),
        (
            json!([layer("application/wasm", u64::MAX)]),
            "takes 67108864 at most",
        ),
    ] {
        let shop = shop(Lie::None).await;
        let manifest = json!({ "schemaVersion": 2, "config": layer("application/vnd.oci.empty.v1+json", 2), "layers": layers });
        shop.manifests
            .lock()
            .insert("1".into(), manifest.to_string().into());
        let pulled = registry(&shop, None).pull(&named(&shop, ":1")).await;
        let said = format!("{:#}", pulled.err().unwrap());
        assert!(said.contains(part), "{said}");
        assert_eq!(shop.asked.lock().len(), 1, "its layer is not asked for");
    }
    let index = shop(Lie::None).await;
    let manifests = json!({ "schemaVersion": 2, "manifests": [] });
    index
        .manifests
        .lock()
        .insert("1".into(), manifests.to_string().into());
    let said = registry(&index, None)
        .pull(&named(&index, ":1"))
        .await
        .err()
        .unwrap();
    assert!(format!("{said:#}").contains("an index of several"), "{said:#}");
}

#[tokio::test]
async fn a_token_is_asked_for_once_with_the_rights_that_are_needed() {
    let shop = lying(Lie::Token("http://{}/token")).await;
    let ours = registry(&shop, Some("u:p"));
    ours.pull(&named(&shop, ":1")).await.unwrap();
    let asked = shop.asked.lock().clone();
    let tokens: Vec<_> = asked
        .iter()
        .filter(|(what, _)| what.starts_with("GET /token"))
        .collect();
    // The login goes to the realm, the token to the registry, and what the registry wanted more is not asked for.
    let wanted = "GET /token?scope=repository%3Ateam%2Frouter%3Apull&service=the+shop";
    assert_eq!(tokens, [&(wanted.to_owned(), "Basic dTpw".to_owned())]);
    let shown: Vec<&str> = asked.iter().map(|(_, shown)| shown.as_str()).collect();
    assert_eq!(
        shown,
        ["", "Basic dTpw", "Bearer of-the-realm", "Bearer of-the-realm"]
    );
}

#[tokio::test]
async fn a_password_is_shown_to_who_asks_for_one_and_to_nobody_else() {
    let shop = lying(Lie::Password).await;
    registry(&shop, Some("u:p"))
        .pull(&named(&shop, ":1"))
        .await
        .unwrap();
    let none = registry(&shop, None)
        .pull(&named(&shop, ":1"))
        .await
        .err()
        .unwrap();
    assert!(format!("{none:#}").contains("wants a login"), "{none:#}");
    let wrong = registry(&shop, Some("u:wrong"))
        .pull(&named(&shop, ":1"))
        .await
        .err()
        .unwrap();
    let said = format!("{wrong:#}");
    assert!(said.contains("401") && !said.contains("wrong"), "{said}");

    // Where the blobs are somewhere else, which is another port here, the password stays.
    let elsewhere = lying(Lie::None).await;
    let far: &'static str =
        Box::leak(format!("http://{}/v2/team/router/blobs/x", elsewhere.address).into_boxed_str());
    let leading = lying(Lie::PasswordLeads(far)).await;
    let _ = registry(&leading, Some("u:p")).pull(&named(&leading, ":1")).await;
    let asked = leading.asked.lock().clone();
    assert!(asked.iter().any(|(_, shown)| shown == "Basic dTpw"), "{asked:?}");
    let asked = elsewhere.asked.lock().clone();
    assert!(
        asked.iter().any(|(what, _)| what.contains("/blobs/x")),
        "{asked:?}"
    );
    assert!(asked.iter().all(|(_, shown)| shown.is_empty()), "{asked:?}");
}

#[test]
fn a_reference_names_a_host_a_name_and_a_version() {
    let digest = format!("sha256:{}", "ab".repeat(32));
    for text in [
        "registry.example/team/router:1.2".to_owned(),
        "localhost/a".into(),
        "127.0.0.1:5000/a.b/c_d-e".into(),
        "[::1]:5000/a".into(),
        format!("registry.example:443/a@{digest}"),
        format!("registry.example/a:T_1@{digest}"),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!(reference.to_string(), text);
        let with_scheme: Reference = format!("oci://{text}").parse().unwrap();
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
        assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
    }
}
