//! The index of passages: embedded in the data folder, or on a server of Qdrant's protocol.
//!
//! Both combine two rankings: by embedding and by words (BM25). Reciprocal rank fusion joins them (Cormack, Clarke, Büttcher, SIGIR 2009;
//! k = 2, Qdrant's value), which needs no common scale of scores.

mod embedded_vector_store;
mod hybrid_ranking;
mod passage_filter;
mod passage_payload;
mod point_copy;
mod qdrant_errors;
mod qdrant_points;
mod qdrant_vector_store;
mod query_word_matcher;
mod sparse_vector;
mod words;

pub use self::embedded_vector_store::EmbeddedVectorStore;
pub use self::hybrid_ranking::MAX_HITS;
pub(crate) use self::point_copy::{StoredPoints, copy_points, verify_points};
pub use self::qdrant_vector_store::{QdrantConnection, QdrantVectorStore};
