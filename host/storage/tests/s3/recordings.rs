//! Recordings on an S3 server, whose removal on one node stops the writers of others.

use std::sync::Arc;
use std::time::Duration;

use weir_core::JobId;
use weir_core::recording::{AppendOutcome, RecordingSession, RecordingStore as _};
use weir_s3_server::{Fault, S3TestServer};
use weir_storage::{S3Bucket, S3RecordingStore};

use super::{connection_to, error_kind, keys_of_content, open};
use crate::fixture::tenant_id;

/// A node removes a recording of a session that another node writes, before, while and after a part is stored.
#[tokio::test(flavor = "multi_thread")]
async fn removed_recording_does_not_come_back_from_another_node() {
    let server = S3TestServer::start();
    let connection = connection_to(&server);
    let store = async || S3RecordingStore::new(Arc::new(S3Bucket::connect(&connection).await.unwrap()));
    let (writer, remover) = (store().await, store().await);
    // The requests of one of them wait, so that those of the other fall between them.
    for (text, delay) in [
        ("", 0),
        ("PUT", 40),
        ("HEAD", 40),
        ("POST", 40),
        ("GET", 40),
        ("list-type", 20),
    ] {
        let session = RecordingSession::start(tenant_id("acme"), JobId::new());
        writer.append_part(&session, 0, b"first").await.unwrap();
        server.fail_requests(Fault::Delay(Duration::from_millis(delay)), text, u32::MAX);
        let write = async {
            let mut outcomes = Vec::new();
            for part in 1..=4 {
                let outcome = writer.append_part(&session, part, b"next").await.unwrap();
                outcomes.push(outcome);
                if outcome == AppendOutcome::Removed {
                    break;
                }
            }
            outcomes
        };
        let remove = remover.remove_recordings(&session.tenant, std::slice::from_ref(&session.job));
        let (outcomes, removed) = tokio::join!(write, remove);
        removed.unwrap();
        server.fail_with(None);
        let late = writer.append_part(&session, 5, b"late").await.unwrap();
        assert_eq!(late, AppendOutcome::Removed, "{text}: {outcomes:?}");
        assert_eq!(
            keys_of_content(&server),
            Vec::<String>::new(),
            "{text}: {outcomes:?}"
        );
    }
}

/// The server is not available to the writer while another node removes the job or the tenant.
#[tokio::test(flavor = "multi_thread")]
async fn first_part_that_is_repeated_after_a_removal_is_not_stored() {
    let server = S3TestServer::start();
    let connection = connection_to(&server);
    let store = async || S3RecordingStore::new(Arc::new(S3Bucket::connect(&connection).await.unwrap()));
    let (writer, remover) = (store().await, store().await);
    for removes_tenant in [false, true] {
        let session = RecordingSession::start(tenant_id("acme"), JobId::new());
        server.fail_requests(Fault::InternalError, "PUT", u32::MAX);
        let failed = writer.append_part(&session, 0, b"first").await;
        assert_eq!(error_kind(failed), "storage-unavailable");
        server.fail_with(None);
        match removes_tenant {
            true => remover.remove_all_recordings_of_tenant(&session.tenant).await,
            false => remover.remove_recordings(&session.tenant, &[session.job]).await,
        }
        .unwrap();
        let repeated = writer.append_part(&session, 0, b"first").await.unwrap();
        assert_eq!(repeated, AppendOutcome::Removed);
        assert_eq!(keys_of_content(&server), Vec::<String>::new());
    }
}

/// The server stores a request that its writer gave up before it found the removal.
#[tokio::test(flavor = "multi_thread")]
async fn part_that_arrives_after_its_writer_has_ended_is_removed_later() {
    let server = S3TestServer::start();
    let bucket = Arc::new(S3Bucket::connect(&connection_to(&server)).await.unwrap());
    let store = S3RecordingStore::new(bucket);
    for removes_tenant in [false, true] {
        let (session, other) = (
            RecordingSession::start(tenant_id("acme"), JobId::new()),
            RecordingSession::start(tenant_id("acme-b"), JobId::new()),
        );
        store.append_part(&session, 0, b"first").await.unwrap();
        store.append_part(&other, 0, b"other").await.unwrap();
        let keys = server.keys();
        let key = |id: uuid::Uuid| keys.iter().find(|key| key.contains(&id.to_string())).unwrap();
        match removes_tenant {
            true => store.remove_all_recordings_of_tenant(&session.tenant).await,
            false => store.remove_recordings(&session.tenant, &[session.job]).await,
        }
        .unwrap();
        server.insert_object(key(session.id), b"late");
        store.forget_old_removals().await.unwrap();
        assert_eq!(server.keys().len(), 3, "the removal is not old");
        server.age_objects(Duration::from_secs(25 * 60 * 60));
        store.forget_old_removals().await.unwrap();
        assert_eq!(server.keys(), [key(other.id).as_str()]);
        store
            .remove_recordings(&other.tenant, &[other.job])
            .await
            .unwrap();
        server.age_objects(Duration::from_secs(25 * 60 * 60));
        store.forget_old_removals().await.unwrap();
        assert_eq!(server.keys(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_of_a_data_folder_from_before_the_s3_server_are_removed() {
    let (server, dir) = (S3TestServer::start(), tempfile::tempdir().unwrap());
    let folder = dir.path().join("recordings/acme");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("a.calls"), "text").unwrap();
    let storage = open(dir.path(), &connection_to(&server)).await;
    assert!(!dir.path().join("recordings").exists());
    storage.close().await.unwrap();
}
