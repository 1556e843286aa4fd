//! The points of one collection, and exact search in them.

use std::collections::{BTreeMap, HashMap, HashSet};

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    CreateCollection, Filter, Modifier, PointId, PointStruct, PrefetchQuery, QueryPoints, RetrievedPoint,
    ScoredPoint, Value, query, value::Kind, vector, vector_input, vectors, vectors_config,
};
use tonic::Status;

use crate::filter::matches_filter;

/// Constant of reciprocal rank fusion where a request has none.
const DEFAULT_RRF_K: u32 = 2;
/// Number of results where a request has no limit.
const DEFAULT_LIMIT: u64 = 10;

struct StoredPoint {
    id: PointId,
    payload: HashMap<String, Value>,
    /// Of unit length.
    dense: HashMap<String, Vec<f32>>,
    sparse: HashMap<String, BTreeMap<u32, f32>>,
}

/// A collection.
pub(crate) struct Collection {
    config: CreateCollection,
    points: BTreeMap<String, StoredPoint>,
    indexed_fields: HashSet<String>,
}

impl Collection {
    pub(crate) fn new(config: CreateCollection) -> Self {
        Self {
            config,
            points: BTreeMap::new(),
            indexed_fields: HashSet::new(),
        }
    }

    pub(crate) const fn indexed_fields(&self) -> &HashSet<String> {
        &self.indexed_fields
    }

    pub(crate) const fn config(&self) -> &CreateCollection {
        &self.config
    }

    pub(crate) fn len(&self) -> usize {
        self.points.len()
    }

    pub(crate) fn replication_factor(&self) -> u32 {
        self.config.replication_factor.unwrap_or(1)
    }

    fn dense_size(&self, name: &str) -> Result<u64, Status> {
        let config = self
            .config
            .vectors_config
            .as_ref()
            .and_then(|config| config.config.as_ref());
        match config {
            Some(vectors_config::Config::ParamsMap(named)) => named.map.get(name).map(|params| params.size),
            _ => None,
        }
        .ok_or_else(|| no_such_vector(name))
    }

    /// Writes points; checks all before the first is written.
    pub(crate) fn upsert(&mut self, points: Vec<PointStruct>) -> Result<(), Status> {
        let points = points
            .into_iter()
            .map(|point| self.check_point(point))
            .collect::<Result<Vec<_>, _>>()?;
        for point in points {
            self.points.insert(id_text(&point.id), point);
        }
        Ok(())
    }

    fn check_point(&self, point: PointStruct) -> Result<StoredPoint, Status> {
        let id = point
            .id
            .ok_or_else(|| Status::invalid_argument("a point has no id"))?;
        let Some(vectors::VectorsOptions::Vectors(named)) = point.vectors.and_then(|v| v.vectors_options)
        else {
            return Err(Status::unimplemented("only named vectors are implemented"));
        };
        let mut stored = StoredPoint {
            id,
            payload: point.payload,
            dense: HashMap::new(),
            sparse: HashMap::new(),
        };
        for (name, vector) in named.vectors {
            match vector.vector {
                Some(vector::Vector::Dense(dense)) => {
                    check_dimensions(dense.data.len(), self.dense_size(&name)?)?;
                    stored.dense.insert(name, normalize(dense.data));
                }
                Some(vector::Vector::Sparse(sparse)) => {
                    let weights = sparse.indices.into_iter().zip(sparse.values).collect();
                    stored.sparse.insert(name, weights);
                }
                _ => return Err(Status::unimplemented("this kind of vector is not implemented")),
            }
        }
        Ok(stored)
    }

    /// Removes the points that match a filter.
    pub(crate) fn remove(&mut self, filter: &Filter) -> Result<(), Status> {
        let removed: Vec<String> = self
            .select(Some(filter))?
            .into_iter()
            .map(|(key, _)| key.clone())
            .collect();
        for key in removed {
            self.points.remove(&key);
        }
        Ok(())
    }

    fn select(&self, filter: Option<&Filter>) -> Result<Vec<(&String, &StoredPoint)>, Status> {
        let mut selected = Vec::new();
        for (key, point) in &self.points {
            if matches_filter(filter, &point.payload)? {
                selected.push((key, point));
            }
        }
        Ok(selected)
    }

    /// Returns the points with these ids, as far as they exist, with all their vectors.
    pub(crate) fn get(&self, ids: &[PointId]) -> Vec<RetrievedPoint> {
        let found = ids.iter().filter_map(|id| self.points.get(&id_text(id)));
        found.map(to_retrieved_point).collect()
    }

    /// Returns up to `limit` points from an id on, in the order of their ids, and the id of the next.
    pub(crate) fn scroll(
        &self,
        from: Option<&PointId>,
        limit: usize,
    ) -> (Vec<RetrievedPoint>, Option<PointId>) {
        let from = from.map(id_text).unwrap_or_default();
        let mut points = self.points.range(from..).map(|(_, point)| point);
        let found = points.by_ref().take(limit).map(to_retrieved_point).collect();
        (found, points.next().map(|point| point.id.clone()))
    }

    pub(crate) fn create_field_index(&mut self, field: &str) {
        self.indexed_fields.insert(field.to_owned());
    }

    /// Returns how many selected points have each integer value of a field.
    pub(crate) fn facet(&self, field: &str, filter: Option<&Filter>) -> Result<BTreeMap<i64, u64>, Status> {
        if !self.indexed_fields.contains(field) {
            return Err(Status::invalid_argument(format!(
                "Bad request: Index required but not found for \"{field}\""
            )));
        }
        let mut counts = BTreeMap::new();
        for (_, point) in self.select(filter)? {
            match point.payload.get(field).and_then(|value| value.kind.as_ref()) {
                Some(Kind::IntegerValue(value)) => *counts.entry(*value).or_default() += 1,
                None => {}
                Some(_) => return Err(Status::unimplemented("facets are implemented for integers")),
            }
        }
        Ok(counts)
    }

    /// Runs a query that joins rankings by reciprocal rank fusion.
    pub(crate) fn query(&self, request: &QueryPoints) -> Result<Vec<ScoredPoint>, Status> {
        let k = match request.query.as_ref().and_then(|query| query.variant.as_ref()) {
            Some(query::Variant::Rrf(rrf)) => rrf.k.unwrap_or(DEFAULT_RRF_K),
            _ => {
                return Err(Status::unimplemented(
                    "only rank fusion of prefetches is implemented",
                ));
            }
        };
        let mut scores: BTreeMap<&String, f32> = BTreeMap::new();
        for prefetch in &request.prefetch {
            for (rank, (key, _)) in self.rank(prefetch)?.into_iter().enumerate() {
                *scores.entry(key).or_default() += 1.0 / (k as f32 + rank as f32);
            }
        }
        let mut found: Vec<_> = scores.into_iter().collect();
        found.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let mut results = Vec::new();
        for (key, score) in found {
            let point = &self.points[key];
            if matches_filter(request.filter.as_ref(), &point.payload)? {
                results.push(to_scored_point(point, score));
            }
        }
        results.truncate(usize::try_from(request.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(usize::MAX));
        Ok(results)
    }

    /// Returns the best points of one ranking with their scores, best first.
    fn rank(&self, prefetch: &PrefetchQuery) -> Result<Vec<(&String, f32)>, Status> {
        let name = prefetch.using.as_deref().unwrap_or_default();
        let Some(query::Variant::Nearest(nearest)) = prefetch.query.as_ref().and_then(|q| q.variant.as_ref())
        else {
            return Err(Status::unimplemented(
                "only nearest vectors are implemented in prefetches",
            ));
        };
        let selected = self.select(prefetch.filter.as_ref())?;
        let mut ranked: Vec<(&String, f32)> = match &nearest.variant {
            Some(vector_input::Variant::Dense(dense)) => {
                check_dimensions(dense.data.len(), self.dense_size(name)?)?;
                let query = normalize(dense.data.clone());
                let score = |point: &StoredPoint| {
                    let dense = point.dense.get(name)?;
                    Some(dense.iter().zip(&query).map(|(a, b)| a * b).sum())
                };
                selected
                    .iter()
                    .filter_map(|(key, point)| Some((*key, score(point)?)))
                    .collect()
            }
            Some(vector_input::Variant::Sparse(sparse)) => {
                let weights = sparse.indices.iter().zip(&sparse.values);
                let query: Vec<(u32, f32)> = weights
                    .map(|(index, weight)| (*index, weight * self.inverse_document_frequency(name, *index)))
                    .collect();
                let score = |point: &StoredPoint| {
                    let words = point.sparse.get(name)?;
                    let common: Vec<f32> = query
                        .iter()
                        .filter_map(|(index, weight)| Some(words.get(index)? * weight))
                        .collect();
                    (!common.is_empty()).then(|| common.iter().sum())
                };
                selected
                    .iter()
                    .filter_map(|(key, point)| Some((*key, score(point)?)))
                    .collect()
            }
            _ => return Err(Status::unimplemented("this kind of query is not implemented")),
        };
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranked.truncate(usize::try_from(prefetch.limit.unwrap_or(DEFAULT_LIMIT)).unwrap_or(usize::MAX));
        Ok(ranked)
    }

    /// Returns the inverse frequency of a word in the whole collection by Qdrant's formula, or 1 if the vector does not use it.
    fn inverse_document_frequency(&self, name: &str, index: u32) -> f32 {
        let params = self
            .config
            .sparse_vectors_config
            .as_ref()
            .and_then(|config| config.map.get(name));
        if params.and_then(|params| params.modifier) != Some(Modifier::Idf as i32) {
            return 1.0;
        }
        let vectors: Vec<_> = self
            .points
            .values()
            .filter_map(|point| point.sparse.get(name))
            .collect();
        let containing = vectors.iter().filter(|words| words.contains_key(&index)).count() as f32;
        ((vectors.len() as f32 - containing + 0.5) / (containing + 0.5)).ln_1p()
    }
}

fn to_retrieved_point(point: &StoredPoint) -> RetrievedPoint {
    use qdrant_client::qdrant::{
        DenseVector, NamedVectorsOutput, SparseVector, VectorOutput, VectorsOutput, vector_output,
        vectors_output,
    };
    let output = |name: &String, vector| {
        let output = VectorOutput {
            vector: Some(vector),
            ..VectorOutput::default()
        };
        (name.clone(), output)
    };
    let dense = point.dense.iter().map(|(name, data)| {
        let vector = DenseVector { data: data.clone() };
        output(name, vector_output::Vector::Dense(vector))
    });
    let sparse = point.sparse.iter().map(|(name, words)| {
        let vector = SparseVector {
            indices: words.keys().copied().collect(),
            values: words.values().copied().collect(),
        };
        output(name, vector_output::Vector::Sparse(vector))
    });
    let vectors = NamedVectorsOutput {
        vectors: dense.chain(sparse).collect(),
    };
    RetrievedPoint {
        id: Some(point.id.clone()),
        payload: point.payload.clone(),
        vectors: Some(VectorsOutput {
            vectors_options: Some(vectors_output::VectorsOptions::Vectors(vectors)),
        }),
        ..RetrievedPoint::default()
    }
}

fn to_scored_point(point: &StoredPoint, score: f32) -> ScoredPoint {
    use qdrant_client::qdrant::{
        DenseVector, NamedVectorsOutput, VectorOutput, VectorsOutput, vector_output, vectors_output,
    };
    let dense = point.dense.iter().map(|(name, data)| {
        let vector = vector_output::Vector::Dense(DenseVector { data: data.clone() });
        let output = VectorOutput {
            vector: Some(vector),
            ..VectorOutput::default()
        };
        (name.clone(), output)
    });
    ScoredPoint {
        id: Some(point.id.clone()),
        payload: point.payload.clone(),
        score,
        vectors: Some(VectorsOutput {
            vectors_options: Some(vectors_output::VectorsOptions::Vectors(NamedVectorsOutput {
                vectors: dense.collect(),
            })),
        }),
        ..ScoredPoint::default()
    }
}

fn id_text(id: &PointId) -> String {
    match &id.point_id_options {
        Some(PointIdOptions::Uuid(id)) => id.clone(),
        Some(PointIdOptions::Num(id)) => id.to_string(),
        None => String::new(),
    }
}

fn normalize(vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    match length > 0.0 {
        true => vector.into_iter().map(|x| x / length).collect(),
        false => vector,
    }
}

fn check_dimensions(actual: usize, expected: u64) -> Result<(), Status> {
    if u64::try_from(actual) == Ok(expected) {
        return Ok(());
    }
    let reason = format!("Wrong input: Vector dimension error: expected dim: {expected}, got {actual}");
    Err(Status::invalid_argument(reason))
}

fn no_such_vector(name: &str) -> Status {
    Status::invalid_argument(format!("Wrong input: Not existing vector name error: {name}"))
}
