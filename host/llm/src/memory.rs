//! Answers kept in memory, as many as fit; those asked for longest ago go first.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use parking_lot::Mutex;
use weir_core::language::{Answer, AnswerCache, AnswerKey};
use weir_core::{DocumentId, StorageError, TenantId};

/// What an answer costs beside its texts.
const BESIDE: usize = 256;

struct Kept {
    tenant: TenantId,
    document: Option<DocumentId>,
    answer: Answer,
    bytes: usize,
    used: u64,
}

#[derive(Default)]
struct State {
    answers: HashMap<AnswerKey, Kept>,
    by_use: BTreeMap<u64, AnswerKey>,
    uses: u64,
    bytes: usize,
}

/// Keeps answers until the process ends.
pub struct MemoryAnswers {
    most: usize,
    state: Mutex<State>,
}

impl MemoryAnswers {
    /// Keeps at most so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            most: bytes,
            state: Mutex::default(),
        }
    }
}

impl State {
    fn remove(&mut self, key: &AnswerKey) {
        if let Some(kept) = self.answers.remove(key) {
            self.by_use.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }

    fn remove_where(&mut self, meant: impl Fn(&Kept) -> bool) {
        let meant = self.answers.iter().filter(|(_, kept)| meant(kept));
        let keys: Vec<AnswerKey> = meant.map(|(key, _)| *key).collect();
        keys.iter().for_each(|key| self.remove(key));
    }
}

#[async_trait]
impl AnswerCache for MemoryAnswers {
    async fn get(&self, tenant: &TenantId, key: &AnswerKey) -> Result<Option<Answer>, StorageError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(kept) = state.answers.get_mut(key).filter(|kept| kept.tenant == *tenant) else {
            return Ok(None);
        };
        state.by_use.remove(&kept.used);
        state.uses += 1;
        kept.used = state.uses;
        state.by_use.insert(kept.used, *key);
        Ok(Some(kept.answer.clone()))
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &AnswerKey,
        document: Option<&DocumentId>,
        answer: &Answer,
    ) -> Result<(), StorageError> {
        let quotes = answer.quotes.len() * size_of::<weir_core::language::Quote>();
        let bytes = answer.text.len() + quotes + BESIDE;
        let mut state = self.state.lock();
        state.remove(key);
        if bytes > self.most {
            return Ok(());
        }
        while state.bytes + bytes > self.most {
            let Some((_, oldest)) = state.by_use.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            state.remove(&oldest);
        }
        state.uses += 1;
        let used = state.uses;
        let kept = Kept {
            tenant: tenant.clone(),
            document: document.copied(),
            answer: answer.clone(),
            bytes,
            used,
        };
        state.answers.insert(*key, kept);
        state.by_use.insert(used, *key);
        state.bytes += bytes;
        Ok(())
    }

    async fn remove(&self, tenant: &TenantId, document: &DocumentId) -> Result<(), StorageError> {
        let of_document = |kept: &Kept| kept.document.is_none_or(|known| known == *document);
        self.state
            .lock()
            .remove_where(|kept| kept.tenant == *tenant && of_document(kept));
        Ok(())
    }

    async fn clear(&self, tenant: &TenantId) -> Result<(), StorageError> {
        self.state.lock().remove_where(|kept| kept.tenant == *tenant);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            text: "x".repeat(bytes),
            quotes: Vec::new(),
            prompt_tokens: None,
            answer_tokens: None,
            provider: "p".into(),
            model: "m".into(),
            cached: false,
            waited: Duration::ZERO,
            spent: Duration::ZERO,
        }
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room_and_tenants_do_not_see_each_other() {
        let (one, other) = ("one".parse().unwrap(), "other".parse().unwrap());
        let answers = MemoryAnswers::new(3 * (100 + BESIDE));
        let known = async |key: u8| answers.get(&one, &[key; 32]).await.unwrap().is_some();
        for key in 0..3 {
            answers.put(&one, &[key; 32], None, &answer(100)).await.unwrap();
        }
        assert!(known(0).await);
        answers.put(&one, &[3; 32], None, &answer(100)).await.unwrap();
        assert_eq!(
            [known(0).await, known(1).await, known(2).await, known(3).await],
            [true, false, true, true]
        );
        assert!(answers.get(&other, &[0; 32]).await.unwrap().is_none());
        // The same again takes no more room, and what is larger than all room is not kept.
        answers.put(&one, &[3; 32], None, &answer(100)).await.unwrap();
        answers.put(&one, &[4; 32], None, &answer(10_000)).await.unwrap();
        assert_eq!(
            [known(0).await, known(3).await, known(4).await],
            [true, true, false]
        );
        answers.put(&other, &[5; 32], None, &answer(10)).await.unwrap();
        answers.clear(&one).await.unwrap();
        assert_eq!(answers.state.lock().answers.len(), 1);
        assert_eq!(answers.state.lock().bytes, 10 + BESIDE);
    }
}
