//! What components were asked and answered can be read afterwards.

use std::sync::Arc;

use weir_core::manifest::Role;
use weir_core::ports::{JobPolicy, PolicyRequest};
use weir_core::{JobId, TenantId};
use weir_policy::{Exchange, Frame, PolicyHost, Retention, read_recording};

use crate::support::*;

#[tokio::test]
async fn the_calls_of_a_job_are_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.recordings = Some(folder.path().to_owned());
    let host = PolicyHost::new(config).unwrap();
    let tenant: TenantId = "acme".parse().unwrap();
    let id = JobId::new();
    let pipeline = pipeline("[settings]\ndpi = 200", &[(Role::Chunking, "hostile-trap")]);
    let job = host
        .open_job(PolicyRequest {
            tenant: &tenant,
            job: id,
            pipeline: &pipeline,
            capabilities: Arc::new(Port::default()),
        })
        .await
        .unwrap();
    let plan = job.plan(situation()).await.unwrap();
    let route = job.route_page(&document(), page(7)).await.unwrap();
    let passages = job.passages(source()).await.unwrap();
    drop(job);
    host.flush_recordings().await;

    let frames = read_recording(&folder.path().join(format!("acme/{id}.calls"))).unwrap();
    let [
        Frame::Opened(opened),
        Frame::Call(a),
        Frame::Call(b),
        Frame::Call(c),
        Frame::Call(d),
        Frame::Ended { calls: 4 },
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    assert_eq!((&opened.tenant, opened.job), (&tenant, id));
    assert_eq!(opened.revision, pipeline.revision);
    assert_eq!(opened.settings["dpi"], "200");
    let who = |component: u16| {
        let component = &opened.components[usize::from(component)];
        (component.name.as_str(), component.digest)
    };
    assert_eq!(who(a.component), ("batching", component("batching").digest));
    assert_eq!(a.exchange, Exchange::Plan(situation(), Ok(plan)));
    assert_eq!(b.exchange, Exchange::Page(document(), page(7), Ok(route)));
    // First the component that trapped, then the one that stood in.
    assert_eq!(who(c.component).0, "hostile-trap");
    let Exchange::Passages(asked, Err(error)) = &c.exchange else {
        panic!("{c:?}");
    };
    assert_eq!((asked, error.kind.as_str()), (&source(), "component-trap"));
    assert_eq!(who(d.component).0, "chunking");
    assert_eq!(d.exchange, Exchange::Passages(source(), Ok(passages)));
}

#[tokio::test]
async fn only_so_many_bytes_of_recordings_are_kept_and_the_latest_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.recordings = Some(folder.path().to_owned());
    // Room for one, and not for two.
    config.retention = Retention { days: 0, bytes: 6000 };
    let host = PolicyHost::new(config).unwrap();
    let pipeline = only(&[Role::Routing], &component("routing"));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = JobId::new();
        let request = PolicyRequest {
            tenant: &TenantId::single(),
            job: id,
            pipeline: &pipeline,
            capabilities: Arc::new(Port::default()),
        };
        let job = host.open_job(request).await.unwrap();
        for number in 1..=50 {
            job.route_page(&document(), page(number)).await.unwrap();
        }
        drop(job);
        host.flush_recordings().await;
        ids.push(id);
    }
    let kept = |id: &JobId| folder.path().join(format!("default/{id}.calls")).exists();
    assert_eq!(ids.iter().map(kept).collect::<Vec<_>>(), [false, false, true]);
}
