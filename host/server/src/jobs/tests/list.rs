//! The list of a tenant's jobs.

use axum::http::StatusCode;
use serde_json::Value;
use weir_core::ledger::{Entry, JobState};
use weir_core::ports::Ledger as _;
use weir_core::tenancy::Scope;
use weir_core::{JobId, TenantId};

use crate::fakes::{Host, job_record, json};

/// So many jobs in these states, the first the oldest.
async fn written(host: &Host, tenant: &TenantId, states: &[JobState]) -> Vec<String> {
    let mut ids = Vec::new();
    for state in states {
        let record = job_record(tenant, JobId::new(), *state);
        ids.push(record.id.to_string());
        host.memory.commit(vec![Entry::Job(record)]).await.unwrap();
    }
    ids
}

fn ids(list: &Value) -> Vec<&str> {
    let jobs = list["jobs"].as_array().unwrap();
    jobs.iter().map(|job| job["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn it_is_read_part_by_part_the_newest_first() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    let (b, _) = host.tenant("b", &[Scope::Read]).await;
    let mut expected = written(&host, &a, &[JobState::Done; 7]).await;
    written(&host, &b, &[JobState::Done; 3]).await;
    expected.reverse();
    let (mut seen, mut before, mut parts) = (Vec::new(), String::new(), 0);
    loop {
        let list = json(host.get(&format!("/v1/jobs?limit=3{before}"), &key).await).await;
        seen.extend(ids(&list).into_iter().map(str::to_owned));
        parts += 1;
        let Some(next) = list["next"].as_str() else { break };
        assert_eq!(next, seen.last().unwrap());
        before = format!("&before={next}");
        // What comes in meanwhile is newer and does not push anything into the next part.
        written(&host, &a, &[JobState::Queued]).await;
    }
    assert_eq!((seen, parts), (expected.clone(), 3));
    let whole = json(host.get("/v1/jobs?limit=200&state=done", &key).await).await;
    assert_eq!(
        (ids(&whole), &whole["next"]),
        (expected.iter().map(String::as_str).collect(), &Value::Null)
    );
}

#[tokio::test]
async fn it_shows_one_state_if_asked() {
    let host = Host::new();
    let (a, key) = host.tenant("a", &[Scope::Read]).await;
    use JobState::{Cancelled, Done, Failed, Queued, Running};
    let states = [Queued, Running, Done, Failed, Cancelled];
    let all = written(&host, &a, &states).await;
    for (at, name) in ["queued", "running", "done", "failed", "cancelled"]
        .iter()
        .enumerate()
    {
        let list = json(host.get(&format!("/v1/jobs?state={name}"), &key).await).await;
        assert_eq!(ids(&list), [all[at].as_str()]);
        let job = &list["jobs"][0];
        assert_eq!(
            (&job["state"], &job["pipeline"]),
            (&Value::from(*name), &"default".into())
        );
        assert_eq!(job["created_millis"], 1);
    }
    assert_eq!(ids(&json(host.get("/v1/jobs", &key).await).await).len(), 5);
    for wrong in [
        "limit=0",
        "limit=201",
        "limit=x",
        "state=lost",
        "before=x",
        "after=1",
    ] {
        let answer = host.get(&format!("/v1/jobs?{wrong}"), &key).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{wrong}");
    }
}
