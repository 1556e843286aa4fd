//! Tests of the list of a tenant's jobs.

use axum::http::StatusCode;
use serde_json::Value;
use weir_core::ledger::{JobState, LedgerEntry};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::KeyScope;
use weir_core::{JobId, TenantId};

use crate::fakes::{TestHost, job_record, parse_json};

/// Commits one job for each state, oldest first, and returns their ids.
async fn commit_jobs(host: &TestHost, tenant: &TenantId, states: &[JobState]) -> Vec<String> {
    let mut ids = Vec::new();
    for state in states {
        let record = job_record(tenant, JobId::new(), *state);
        ids.push(record.id.to_string());
        host.store
            .commit_entries(vec![LedgerEntry::Job(record)])
            .await
            .unwrap();
    }
    ids
}

fn listed_ids(list: &Value) -> Vec<&str> {
    let jobs = list["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn list_is_paged_newest_first() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    let (b, _) = host.create_tenant("b", &[KeyScope::Read]).await;
    let mut expected = commit_jobs(&host, &a, &[JobState::Done; 7]).await;
    commit_jobs(&host, &b, &[JobState::Done; 3]).await;
    expected.reverse();
    let (mut seen, mut before, mut parts) = (Vec::new(), String::new(), 0);
    loop {
        let list = parse_json(host.send_get(&format!("/v1/jobs?limit=3{before}"), &key).await).await;
        seen.extend(listed_ids(&list).into_iter().map(str::to_owned));
        parts += 1;
        let Some(next) = list["next"].as_str() else { break };
        assert_eq!(next, seen.last().unwrap());
        before = format!("&before={next}");
        // A job that is created meanwhile is newer and does not shift the next part.
        commit_jobs(&host, &a, &[JobState::Queued]).await;
    }
    assert_eq!((seen, parts), (expected.clone(), 3));
    let whole = parse_json(host.send_get("/v1/jobs?limit=200&state=done", &key).await).await;
    assert_eq!(
        (listed_ids(&whole), &whole["next"]),
        (expected.iter().map(String::as_str).collect(), &Value::Null)
    );
}

#[tokio::test]
async fn list_can_be_filtered_by_state() {
    let host = TestHost::new();
    let (a, key) = host.create_tenant("a", &[KeyScope::Read]).await;
    use JobState::{Cancelled, Done, Failed, Queued, Running};
    let states = [Queued, Running, Done, Failed, Cancelled];
    let all = commit_jobs(&host, &a, &states).await;
    for (at, name) in ["queued", "running", "done", "failed", "cancelled"]
        .iter()
        .enumerate()
    {
        let list = parse_json(host.send_get(&format!("/v1/jobs?state={name}"), &key).await).await;
        assert_eq!(listed_ids(&list), [all[at].as_str()]);
        let job = &list["jobs"][0];
        assert_eq!(
            (&job["state"], &job["pipeline"]),
            (&Value::from(*name), &"default".into())
        );
        assert_eq!(job["created_millis"], 1);
    }
    assert_eq!(
        listed_ids(&parse_json(host.send_get("/v1/jobs", &key).await).await).len(),
        5
    );
    for wrong in [
        "limit=0",
        "limit=201",
        "limit=x",
        "state=lost",
        "before=x",
        "after=1",
    ] {
        let response = host.send_get(&format!("/v1/jobs?{wrong}"), &key).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}
