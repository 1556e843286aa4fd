//! Connects to the stores of the settings that are on a Qdrant, an S3 or a Redis server.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use weir_core::settings::Settings;
use weir_storage::{
    QdrantConnection, QdrantVectorStore, RedisClient, RedisConnection, S3Bucket, S3Connection,
    ServerSideEncryption,
};

use crate::ledger_access::read_secret_variable;

/// Name of the text embedding model. It is stored with the vectors, so that vectors of different models are not mixed.
pub(crate) const EMBEDDING_MODEL: &str = "all-MiniLM-L6-v2";

/// Connects to the Qdrant server of the settings and creates its collection for vectors of this length if it does not exist. `None`
/// if the passages are in the data folder.
pub(crate) async fn connect_qdrant(
    settings: &Settings,
    dimensions: usize,
) -> Result<Option<QdrantVectorStore>> {
    let Some(connection) = qdrant_connection(settings)? else {
        return Ok(None);
    };
    let connected =
        QdrantVectorStore::connect_and_create_collection(&connection, dimensions, EMBEDDING_MODEL).await;
    let store =
        connected.with_context(|| format!("cannot use {} (storage.vectors)", settings.storage_vectors))?;
    Ok(Some(store))
}

/// Returns the address of the Qdrant server of the settings. `None` if the passages are in the data folder.
pub(crate) fn qdrant_connection(settings: &Settings) -> Result<Option<QdrantConnection>> {
    if settings.storage_vectors.is_empty() {
        return Ok(None);
    }
    Ok(Some(QdrantConnection {
        url: settings.storage_vectors.clone(),
        api_key: read_secret_variable(&settings.storage_qdrant_key_env, "storage.qdrant_key_env")?,
        replication_factor: settings.storage_qdrant_replication_factor,
    }))
}

/// Connects to the S3 bucket of the settings. `None` if uploads, components and blobs are in the data folder.
pub(crate) async fn connect_s3_bucket(settings: &Settings) -> Result<Option<Arc<S3Bucket>>> {
    if settings.storage_blobs.is_empty() {
        return Ok(None);
    }
    let context = || format!("cannot use {} (storage.blobs)", settings.storage_blobs);
    let connection = S3Connection {
        location: settings.storage_blobs.parse().with_context(context)?,
        endpoint: non_empty(&settings.storage_s3_endpoint),
        region: non_empty(&settings.storage_s3_region),
        path_style: settings.storage_s3_path_style,
        credentials: None,
        server_side_encryption: match settings.storage_s3_server_side_encryption.as_str() {
            "AES256" => ServerSideEncryption::S3Keys,
            "aws:kms" => ServerSideEncryption::KmsKey,
            _ => ServerSideEncryption::BucketDefault,
        },
        max_cache_bytes: settings.storage_s3_cache_bytes,
        max_copy_bytes: S3Connection::MAX_COPY_BYTES,
        attempt_timeout: S3Connection::ATTEMPT_TIMEOUT,
    };
    let bucket = S3Bucket::connect(&connection).await.with_context(context)?;
    Ok(Some(Arc::new(bucket)))
}

/// Creates a client of the Redis server of the settings for the node with this name. `None` if `cluster.redis` is empty.
pub(crate) fn connect_redis(settings: &Settings, node: &str) -> Result<Option<Arc<RedisClient>>> {
    if settings.cluster_redis.is_empty() {
        return Ok(None);
    }
    let connection = RedisConnection {
        url: settings.cluster_redis.clone(),
        password: read_secret_variable(&settings.cluster_redis_password_env, "cluster.redis_password_env")?,
        key_prefix: settings.cluster_redis_key_prefix.clone(),
        node: node.to_owned(),
    };
    let client = RedisClient::new(&connection)
        .with_context(|| format!("cannot use {} (cluster.redis)", settings.cluster_redis))?;
    Ok(Some(Arc::new(client)))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
