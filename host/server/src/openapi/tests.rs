use std::collections::BTreeSet;

use serde_json::Value;

use crate::fakes;
use crate::routes::build_router_and_openapi;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn build_api_description() -> (axum::Router, Value) {
    let (router, description) = build_router_and_openapi(fakes::test_app());
    (router, serde_json::to_value(description).unwrap())
}

/// Returns each operation as `method path` with its description.
fn list_operations(description: &Value) -> Vec<(String, &Value)> {
    let paths = description["paths"].as_object().unwrap();
    let mut all = Vec::new();
    for (path, item) in paths {
        for method in METHODS {
            if let Some(operation) = item.get(method) {
                all.push((format!("{method} {path}"), operation));
            }
        }
    }
    assert!(!all.is_empty());
    all
}

/// Returns the path templates of all routes. The debug output of the router is the only way to list them.
fn list_router_paths(router: &axum::Router) -> BTreeSet<String> {
    let router_debug = format!("{router:?}");
    let (_, paths) = router_debug
        .split_once("paths: {")
        .expect("the paths of a router");
    let (paths, _) = paths.split_once("} }").unwrap();
    let paths: BTreeSet<String> = paths.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(paths.contains("/healthz"), "{router_debug}");
    paths
}

#[tokio::test]
async fn every_route_is_an_operation_or_a_static_page() {
    let (router, description) = build_api_description();
    let pages: BTreeSet<String> = crate::web_page::list_static_paths().collect();
    let described: BTreeSet<String> = description["paths"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    let routed = list_router_paths(&router);
    let unsaid: Vec<_> = routed
        .iter()
        // OpenAPI cannot describe a WebSocket. The operation for events describes it.
        .filter(|path| !path.ends_with("/ws"))
        .filter(|path| !described.contains(*path) && !pages.contains(*path))
        .collect();
    assert!(unsaid.is_empty(), "not described: {unsaid:?}");
    let missing: Vec<_> = described.iter().filter(|path| !routed.contains(*path)).collect();
    assert!(missing.is_empty(), "described without a route: {missing:?}");
}

#[tokio::test]
async fn every_operation_describes_its_responses() {
    let (_, description) = build_api_description();
    for (name, operation) in list_operations(&description) {
        assert!(
            operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
            "{name}: no summary"
        );
        let responses = operation["responses"].as_object().unwrap();
        let good = responses.keys().any(|status| status.starts_with(['1', '2', '3']));
        assert!(good, "{name}: no success response");
        for (status, response) in responses {
            let content = response["content"].as_object();
            match status.as_bytes()[0] {
                b'4' | b'5' => {
                    let content = content.unwrap_or_else(|| panic!("{name} {status}: no problem"));
                    let kinds: Vec<_> = content.keys().collect();
                    assert_eq!(kinds, ["application/problem+json"], "{name} {status}");
                    let schema = &content["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{name} {status}");
                }
                b'2' if status != "204" => {
                    let content = content.unwrap_or_else(|| panic!("{name} {status}: no body"));
                    assert!(
                        content.values().all(|body| !body["schema"].is_null()),
                        "{name} {status}: no schema"
                    );
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn operations_need_a_key_unless_declared_otherwise() {
    let (_, description) = build_api_description();
    assert_eq!(description["security"][0]["key"], serde_json::json!([]));
    assert_eq!(
        description["components"]["securitySchemes"]["key"]["scheme"],
        "bearer"
    );
    for (name, operation) in list_operations(&description) {
        let keyless = |security: &Value| {
            let all = security.as_array().unwrap();
            all.iter().all(|one| one.get("key").is_none())
        };
        if !operation.get("security").is_some_and(keyless) {
            // Authentication itself can fail with each of these, on any path.
            for status in ["401", "403", "429"] {
                assert!(
                    operation["responses"].get(status).is_some(),
                    "{name}: {status} is not described"
                );
            }
        }
    }
}

#[tokio::test]
async fn operations_with_parameters_describe_status_400() {
    let (_, description) = build_api_description();
    for (name, operation) in list_operations(&description) {
        let parameters = operation["parameters"].as_array();
        let asks = |parameter: &Value| ["query", "header"].contains(&parameter["in"].as_str().unwrap());
        if parameters.is_some_and(|all| all.iter().any(asks)) {
            assert!(
                operation["responses"].get("400").is_some(),
                "{name}: 400 is not described"
            );
        }
    }
}

/// A field whose Rust type is an alias of a number would be described as a schema of that name, without its bounds.
#[tokio::test]
async fn number_aliases_are_described_as_numbers() {
    let (_, description) = build_api_description();
    for name in description["components"]["schemas"].as_object().unwrap().keys() {
        assert!(name.starts_with(|first: char| first.is_uppercase()), "{name}");
    }
    let last = &description["components"]["schemas"]["PageRange"]["properties"]["last"];
    assert_eq!(
        (&last["minimum"], &last["maximum"]),
        (&1.into(), &1_000_000.into())
    );
}

#[tokio::test]
async fn status_429_and_503_describe_retry_after() {
    let (_, description) = build_api_description();
    for (name, operation) in list_operations(&description) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert_eq!(
                response["headers"].get("Retry-After").is_some(),
                ["429", "503"].contains(&status.as_str()),
                "{name}: {status}"
            );
        }
    }
}

#[tokio::test]
async fn tags_are_described_and_operation_ids_are_unique() {
    let (_, description) = build_api_description();
    let groups: BTreeSet<&str> = description["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut names = BTreeSet::new();
    for (name, operation) in list_operations(&description) {
        let tags: Vec<_> = operation["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_str().unwrap())
            .collect();
        assert!(
            !tags.is_empty() && tags.iter().all(|tag| groups.contains(tag)),
            "{name}: {tags:?}"
        );
        let id = operation["operationId"].as_str().unwrap();
        assert!(
            names.insert(id.to_owned()),
            "{name}: another operation has the id {id}"
        );
    }
}

#[tokio::test]
async fn every_schema_reference_resolves() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.insert(target.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let (_, description) = build_api_description();
    let mut found = BTreeSet::new();
    references(&description, &mut found);
    assert!(!found.is_empty());
    for target in found {
        let pointer = target.trim_start_matches('#');
        assert!(description.pointer(pointer).is_some(), "{target} does not exist");
    }
}
