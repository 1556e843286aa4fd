//! The gRPC services.

use std::sync::Arc;
use std::time::Instant;

use ::qdrant_client::qdrant::collections_server::Collections;
use ::qdrant_client::qdrant::facet_value::Variant;
use ::qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use ::qdrant_client::qdrant::points_server::Points;
use ::qdrant_client::qdrant::*;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};

use crate::ServerState;
use crate::collection::Collection;

#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) state: Arc<Mutex<ServerState>>,
}

impl Services {
    fn with_collection<R>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Collection) -> Result<R, Status>,
    ) -> Result<R, Status> {
        match self.state.lock().collections.get_mut(name) {
            Some(collection) => work(collection),
            None => Err(Status::not_found(format!(
                "Not found: Collection `{name}` doesn't exist!"
            ))),
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Implements a service of which all other methods answer `UNIMPLEMENTED`.
macro_rules! implement_service {
    (
        $service:ident { $($implemented:tt)* }
        unimplemented { $($name:ident: $request:ty => $response:ty;)* }
    ) => {
        #[tonic::async_trait]
        impl $service for Services {
            $($implemented)*

            $(async fn $name(&self, _request: Request<$request>) -> Answer<$response> {
                let reason = concat!(stringify!($name), " is not implemented by this test server");
                Err(Status::unimplemented(reason))
            })*
        }
    };
}

fn completed(began: Instant) -> Answer<PointsOperationResponse> {
    Ok(Response::new(PointsOperationResponse {
        result: Some(UpdateResult {
            operation_id: Some(0),
            status: UpdateStatus::Completed.into(),
        }),
        time: began.elapsed().as_secs_f64(),
        usage: None,
    }))
}

implement_service! {
    Collections {
        async fn create(&self, request: Request<CreateCollection>) -> Answer<CollectionOperationResponse> {
            let config = request.into_inner();
            let mut state = self.state.lock();
            let name = config.collection_name.clone();
            if state.collections.contains_key(&name) {
                return Err(Status::already_exists(format!(
                    "Wrong input: Collection `{name}` already exists!"
                )));
            }
            state.collections.insert(name, Collection::new(config));
            Ok(Response::new(CollectionOperationResponse {
                result: true,
                time: 0.0,
            }))
        }

        async fn collection_exists(
            &self,
            request: Request<CollectionExistsRequest>,
        ) -> Answer<CollectionExistsResponse> {
            let exists = self
                .state
                .lock()
                .collections
                .contains_key(&request.get_ref().collection_name);
            Ok(Response::new(CollectionExistsResponse {
                result: Some(CollectionExists { exists }),
                time: 0.0,
            }))
        }

        async fn get(&self, request: Request<GetCollectionInfoRequest>) -> Answer<GetCollectionInfoResponse> {
            let info = self.with_collection(&request.get_ref().collection_name, |collection| {
                let config = collection.config();
                let fields = collection.indexed_fields().iter();
                let indexed = fields.map(|field| (field.clone(), PayloadSchemaInfo::default()));
                let params = CollectionParams {
                    shard_number: config.shard_number.unwrap_or(1),
                    vectors_config: config.vectors_config.clone(),
                    replication_factor: config.replication_factor,
                    sparse_vectors_config: config.sparse_vectors_config.clone(),
                    ..CollectionParams::default()
                };
                Ok(CollectionInfo {
                    status: CollectionStatus::Green.into(),
                    segments_count: 1,
                    config: Some(CollectionConfig {
                        params: Some(params),
                        ..CollectionConfig::default()
                    }),
                    points_count: u64::try_from(collection.len()).ok(),
                    payload_schema: indexed.collect(),
                    ..CollectionInfo::default()
                })
            })?;
            Ok(Response::new(GetCollectionInfoResponse {
                result: Some(info),
                time: 0.0,
            }))
        }
    }
    unimplemented {
        list: ListCollectionsRequest => ListCollectionsResponse;
        update: UpdateCollection => CollectionOperationResponse;
        delete: DeleteCollection => CollectionOperationResponse;
        update_aliases: ChangeAliases => CollectionOperationResponse;
        list_collection_aliases: ListCollectionAliasesRequest => ListAliasesResponse;
        list_aliases: ListAliasesRequest => ListAliasesResponse;
        collection_cluster_info: CollectionClusterInfoRequest => CollectionClusterInfoResponse;
        update_collection_cluster_setup: UpdateCollectionClusterSetupRequest => UpdateCollectionClusterSetupResponse;
        create_shard_key: CreateShardKeyRequest => CreateShardKeyResponse;
        delete_shard_key: DeleteShardKeyRequest => DeleteShardKeyResponse;
        list_shard_keys: ListShardKeysRequest => ListShardKeysResponse;
    }
}

implement_service! {
    Points {
        async fn upsert(&self, request: Request<UpsertPoints>) -> Answer<PointsOperationResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            self.with_collection(&request.collection_name, |collection| {
                collection.upsert(request.points)
            })?;
            completed(began)
        }

        async fn delete(&self, request: Request<DeletePoints>) -> Answer<PointsOperationResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            let selector = request.points.and_then(|points| points.points_selector_one_of);
            let Some(PointsSelectorOneOf::Filter(filter)) = selector else {
                return Err(Status::unimplemented(
                    "only deletions by a filter are implemented",
                ));
            };
            self.with_collection(&request.collection_name, |collection| collection.remove(&filter))?;
            completed(began)
        }

        async fn create_field_index(
            &self,
            request: Request<CreateFieldIndexCollection>,
        ) -> Answer<PointsOperationResponse> {
            let began = Instant::now();
            let request = request.into_inner();
            self.with_collection(&request.collection_name, |collection| {
                collection.create_field_index(&request.field_name);
                Ok(())
            })?;
            completed(began)
        }

        async fn query(&self, request: Request<QueryPoints>) -> Answer<QueryResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            let result =
                self.with_collection(&request.collection_name, |collection| collection.query(&request))?;
            Ok(Response::new(QueryResponse {
                result,
                time: began.elapsed().as_secs_f64(),
                usage: None,
            }))
        }

        /// Returns all vectors and payloads, whatever is requested.
        async fn get(&self, request: Request<GetPoints>) -> Answer<GetResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            let result =
                self.with_collection(&request.collection_name, |collection| Ok(collection.get(&request.ids)))?;
            Ok(Response::new(GetResponse {
                result,
                time: began.elapsed().as_secs_f64(),
                usage: None,
            }))
        }

        /// Returns all vectors and payloads, whatever is requested.
        async fn scroll(&self, request: Request<ScrollPoints>) -> Answer<ScrollResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            if request.filter.is_some() || request.order_by.is_some() {
                return Err(Status::unimplemented("only scrolling over all points is implemented"));
            }
            let limit = usize::try_from(request.limit.unwrap_or(10)).unwrap_or(usize::MAX);
            let (result, next_page_offset) = self.with_collection(&request.collection_name, |collection| {
                Ok(collection.scroll(request.offset.as_ref(), limit))
            })?;
            Ok(Response::new(ScrollResponse {
                next_page_offset,
                result,
                time: began.elapsed().as_secs_f64(),
                usage: None,
            }))
        }

        async fn count(&self, request: Request<CountPoints>) -> Answer<CountResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            if request.filter.is_some() {
                return Err(Status::unimplemented("only counting of all points is implemented"));
            }
            let count = self.with_collection(&request.collection_name, |collection| Ok(collection.len()))?;
            Ok(Response::new(CountResponse {
                result: Some(CountResult {
                    count: u64::try_from(count).unwrap(),
                }),
                time: began.elapsed().as_secs_f64(),
                usage: None,
            }))
        }

        async fn facet(&self, request: Request<FacetCounts>) -> Answer<FacetResponse> {
            let (began, request) = (Instant::now(), request.into_inner());
            let counts = self.with_collection(&request.collection_name, |collection| {
                collection.facet(&request.key, request.filter.as_ref())
            })?;
            let limit = usize::try_from(request.limit.unwrap_or(10)).unwrap_or(usize::MAX);
            let hits = counts.into_iter().take(limit).map(|(value, count)| FacetHit {
                value: Some(FacetValue {
                    variant: Some(Variant::IntegerValue(value)),
                }),
                count,
            });
            Ok(Response::new(FacetResponse {
                hits: hits.collect(),
                time: began.elapsed().as_secs_f64(),
                usage: None,
            }))
        }
    }
    unimplemented {
        update_vectors: UpdatePointVectors => PointsOperationResponse;
        delete_vectors: DeletePointVectors => PointsOperationResponse;
        set_payload: SetPayloadPoints => PointsOperationResponse;
        overwrite_payload: SetPayloadPoints => PointsOperationResponse;
        delete_payload: DeletePayloadPoints => PointsOperationResponse;
        clear_payload: ClearPayloadPoints => PointsOperationResponse;
        delete_field_index: DeleteFieldIndexCollection => PointsOperationResponse;
        create_vector_name: CreateVectorNameRequest => PointsOperationResponse;
        delete_vector_name: DeleteVectorNameRequest => PointsOperationResponse;
        search: SearchPoints => SearchResponse;
        search_batch: SearchBatchPoints => SearchBatchResponse;
        search_groups: SearchPointGroups => SearchGroupsResponse;
        recommend: RecommendPoints => RecommendResponse;
        recommend_batch: RecommendBatchPoints => RecommendBatchResponse;
        recommend_groups: RecommendPointGroups => RecommendGroupsResponse;
        discover: DiscoverPoints => DiscoverResponse;
        discover_batch: DiscoverBatchPoints => DiscoverBatchResponse;
        update_batch: UpdateBatchPoints => UpdateBatchResponse;
        query_batch: QueryBatchPoints => QueryBatchResponse;
        query_groups: QueryPointGroups => QueryGroupsResponse;
        search_matrix_pairs: SearchMatrixPoints => SearchMatrixPairsResponse;
        search_matrix_offsets: SearchMatrixPoints => SearchMatrixOffsetsResponse;
    }
}
