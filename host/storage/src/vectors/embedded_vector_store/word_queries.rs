//! Queries of the index of words: the ranking of passages (BM25), and the passages that match a filter.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tantivy::collector::TopDocs;
use tantivy::columnar::Column;
use tantivy::query::{
    Bm25StatisticsProvider, BooleanQuery, ConstScoreQuery, EnableScoring, Occur, Query, TermQuery,
    TermSetQuery,
};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::{DocSet as _, Searcher, SegmentReader, TERMINATED, Term};
use weir_core::StorageError;

use super::passage_database::{PassageNumber, TenantNumber};
use super::word_index::{NUMBER_FIELD, WordIndex, with_tenant_prefix};
use crate::vectors::passage_filter::PassageFilter;
use crate::vectors::sparse_vector::AVERAGE_WORDS;

/// The statistics of one tenant, for the weights of words.
struct TenantStatistics<'a> {
    searcher: &'a Searcher,
    passages: u64,
}

impl Bm25StatisticsProvider for TenantStatistics<'_> {
    fn total_num_tokens(&self, _: Field) -> tantivy::Result<u64> {
        Ok(self.passages.saturating_mul(AVERAGE_WORDS.into()))
    }

    fn total_num_docs(&self) -> tantivy::Result<u64> {
        Ok(self.passages)
    }

    fn doc_freq(&self, word: &Term) -> tantivy::Result<u64> {
        // Removed passages count until their segment is rewritten.
        Ok(self.searcher.doc_freq(word)?.min(self.passages))
    }
}

impl WordIndex {
    /// Returns at most `limit` passages with words of a query, best first. `words` must be distinct. `passages` is the number of passages
    /// of the tenant.
    pub(super) fn find_best(
        &self,
        tenant: TenantNumber,
        words: &[String],
        filter: &PassageFilter,
        passages: u64,
        limit: usize,
    ) -> Result<Vec<PassageNumber>, StorageError> {
        let words = words.iter().map(|word| {
            let word = Term::from_field_text(self.fields.words, &with_tenant_prefix(tenant, word));
            let query = TermQuery::new(word, IndexRecordOption::WithFreqs);
            (Occur::Should, Box::new(query) as Box<dyn Query>)
        });
        let mut query: Box<dyn Query> = Box::new(BooleanQuery::new(words.collect()));
        if let Some(filter) = self.filter_query(tenant, filter) {
            let filter = ConstScoreQuery::new(filter, 0.0);
            query = Box::new(BooleanQuery::new(vec![
                (Occur::Must, query),
                (Occur::Must, Box::new(filter)),
            ]));
        }
        let searcher = self.reader.searcher();
        let statistics = TenantStatistics {
            searcher: &searcher,
            passages,
        };
        let search = || {
            let best = TopDocs::with_limit(limit).order_by_score();
            let found = searcher.search_with_statistics_provider(&query, &best, &statistics)?;
            let mut columns = HashMap::new();
            let mut numbers = Vec::with_capacity(found.len());
            for (_, address) in found {
                let column = match columns.entry(address.segment_ord) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        new.insert(number_column(searcher.segment_reader(address.segment_ord))?)
                    }
                };
                numbers.extend(column.first(address.doc_id).map(u64::cast_signed));
            }
            Ok(numbers)
        };
        search().map_err(|e| self.to_error(e))
    }

    /// Returns the passages of a tenant that match a filter, in no order; `None` if the filter selects all passages of the tenant.
    pub(super) fn list_matching(
        &self,
        tenant: TenantNumber,
        filter: &PassageFilter,
    ) -> Result<Option<Vec<PassageNumber>>, StorageError> {
        let Some(query) = self.filter_query(tenant, filter) else {
            return Ok(None);
        };
        let searcher = self.reader.searcher();
        let list = || {
            let weight = query.weight(EnableScoring::disabled_from_searcher(&searcher))?;
            let mut numbers = Vec::new();
            for segment in searcher.segment_readers() {
                let column = number_column(segment)?;
                let mut passages = weight.scorer(segment, 1.0)?;
                while passages.doc() != TERMINATED {
                    if !segment.is_deleted(passages.doc()) {
                        numbers.extend(column.first(passages.doc()).map(u64::cast_signed));
                    }
                    passages.advance();
                }
            }
            Ok(numbers)
        };
        list().map(Some).map_err(|e| self.to_error(e))
    }

    /// Returns a query that selects the passages with the keys of a filter; `None` if the filter has no keys.
    fn filter_query(&self, tenant: TenantNumber, filter: &PassageFilter) -> Option<Box<dyn Query>> {
        let key = |key: &String| Term::from_field_text(self.fields.keys, &with_tenant_prefix(tenant, key));
        let mut conditions: Vec<(Occur, Box<dyn Query>)> = filter
            .keys
            .iter()
            .map(|name| {
                let query = TermQuery::new(key(name), IndexRecordOption::Basic);
                (Occur::Must, Box::new(query) as Box<dyn Query>)
            })
            .collect();
        if !filter.any_key.is_empty() {
            let any = TermSetQuery::new(filter.any_key.iter().map(key));
            conditions.push((Occur::Must, Box::new(any)));
        }
        (!conditions.is_empty()).then(|| Box::new(BooleanQuery::new(conditions)) as Box<dyn Query>)
    }
}

fn number_column(segment: &SegmentReader) -> tantivy::Result<Column<u64>> {
    segment.fast_fields().u64(NUMBER_FIELD)
}
