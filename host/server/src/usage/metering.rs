//! What tenants use, gathered in memory and written down every few seconds.
//!
//! Writing each request would cost an fsync each. What is lost by a crash is the last seconds' use, never more, and always in
//! the tenant's favour.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weir_core::usage::{Day, Meter, Usage, UsageBook, day_of};
use weir_core::{StorageError, TenantId};

use super::QuotaSources;
use crate::app::now_millis;

/// Time between two writes.
const EVERY: Duration = Duration::from_secs(5);
/// Tenants whose standing is kept; a few more are read again when they are asked for.
const KEPT: usize = 10_000;

/// Gathers what tenants use. Made before what it meters; the server writes it down.
#[derive(Default)]
pub struct Metering {
    state: Mutex<Gathered>,
    /// Something reserved was given back.
    pub(super) released: Notify,
    pub(super) sources: OnceLock<QuotaSources>,
    /// Held while the book is read or written, so that no amount is counted on both sides.
    book: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Gathered {
    unwritten: HashMap<(Day, TenantId), Usage>,
    /// What the book has of a day.
    written: HashMap<TenantId, (Day, Usage)>,
    /// What is about to be used.
    reserved: HashMap<TenantId, Usage>,
}

impl Metering {
    /// With nothing used.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What a tenant has used on this day so far.
    pub(crate) async fn standing(
        &self,
        book: &dyn UsageBook,
        tenant: &TenantId,
        day: Day,
    ) -> Result<Usage, StorageError> {
        if let Some(usage) = self.state.lock().standing(tenant, day) {
            return Ok(usage);
        }
        let _book = self.book.lock().await;
        let days = book.usage(tenant, day, day).await?;
        let written = days
            .into_iter()
            .find(|(of, _)| *of == day)
            .map(|(_, usage)| usage)
            .unwrap_or_default();
        let mut state = self.state.lock();
        if state.written.len() >= KEPT {
            state.written.clear();
        }
        state.written.insert(tenant.clone(), (day, written));
        Ok(state.standing(tenant, day).unwrap_or_default())
    }

    /// What is reserved for a tenant.
    pub(super) fn reserved(&self, tenant: &TenantId) -> Usage {
        self.state
            .lock()
            .reserved
            .get(tenant)
            .copied()
            .unwrap_or_default()
    }

    /// Reserves what `decide` answers, given what the tenant has used on this day and what is reserved for it; both cannot change
    /// meanwhile. `None` if what was used is not in memory: [`Self::standing`] reads it.
    pub(super) fn reserve<T, E>(
        &self,
        tenant: &TenantId,
        day: Day,
        decide: impl FnOnce(&Usage, &Usage) -> Result<(Usage, T), E>,
    ) -> Option<Result<T, E>> {
        let mut state = self.state.lock();
        let used = state.standing(tenant, day)?;
        let reserved = state.reserved.get(tenant).copied().unwrap_or_default();
        let decided = decide(&used, &reserved).map(|(more, decision)| {
            if more != Usage::default() {
                state.reserved.entry(tenant.clone()).or_default().add(&more);
            }
            decision
        });
        Some(decided)
    }

    /// Gives back what was reserved.
    pub(super) fn give_back(&self, tenant: &TenantId, reserved: &Usage) {
        let mut state = self.state.lock();
        if let Some(all) = state.reserved.get_mut(tenant) {
            *all = without(all, reserved);
            if *all == Usage::default() {
                state.reserved.remove(tenant);
            }
        }
        drop(state);
        self.released.notify_waiters();
    }

    /// A tenant's use by day, with what is not written down yet.
    pub(crate) async fn days(
        &self,
        book: &dyn UsageBook,
        tenant: &TenantId,
        from: Day,
        to: Day,
    ) -> Result<BTreeMap<Day, Usage>, StorageError> {
        let _book = self.book.lock().await;
        let mut days: BTreeMap<Day, Usage> = book.usage(tenant, from, to).await?.into_iter().collect();
        let state = self.state.lock();
        let own = state
            .unwritten
            .iter()
            .filter(|((day, of), _)| of == tenant && (from..=to).contains(day));
        for ((day, _), usage) in own {
            days.entry(*day).or_default().add(usage);
        }
        Ok(days)
    }

    /// Writes down what has been gathered. What cannot be written is kept.
    pub(crate) async fn write(&self, book: &dyn UsageBook) -> Result<(), StorageError> {
        let _book = self.book.lock().await;
        let mut days: BTreeMap<Day, Vec<(TenantId, Usage)>> = BTreeMap::new();
        for ((day, tenant), usage) in &self.state.lock().unwritten {
            days.entry(*day).or_default().push((tenant.clone(), *usage));
        }
        for (day, amounts) in days {
            book.add(day, amounts.clone()).await?;
            let mut state = self.state.lock();
            for (tenant, usage) in amounts {
                state.wrote(day, tenant, &usage);
            }
        }
        Ok(())
    }

    /// Forgets a tenant that was removed.
    pub(crate) fn forget(&self, tenant: &TenantId) {
        let mut state = self.state.lock();
        state.unwritten.retain(|(_, of), _| of != tenant);
        state.written.remove(tenant);
    }

    /// Writes again and again, and a last time at `stop`.
    pub(crate) async fn keep_writing(&self, book: &dyn UsageBook, stop: CancellationToken) {
        loop {
            let stopped = tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok();
            if let Err(error) = self.write(book).await {
                tracing::warn!(%error, "usage could not be written and is kept");
            }
            if stopped {
                return;
            }
        }
    }
}

impl Meter for Metering {
    fn used(&self, tenant: &TenantId, usage: &Usage) {
        let day = day_of(now_millis());
        if let Some(sources) = self.sources.get().filter(|_| usage.llm_calls > 0) {
            sources.labels.called_models(tenant, usage);
        }
        let mut state = self.state.lock();
        state
            .unwritten
            .entry((day, tenant.clone()))
            .or_default()
            .add(usage);
    }
}

impl Gathered {
    fn standing(&self, tenant: &TenantId, day: Day) -> Option<Usage> {
        let (_, mut usage) = self.written.get(tenant).copied().filter(|(of, _)| *of == day)?;
        if let Some(more) = self.unwritten.get(&(day, tenant.clone())) {
            usage.add(more);
        }
        Some(usage)
    }

    fn wrote(&mut self, day: Day, tenant: TenantId, usage: &Usage) {
        if let Some((of, written)) = self.written.get_mut(&tenant)
            && *of == day
        {
            written.add(usage);
        }
        let key = (day, tenant);
        let Some(kept) = self.unwritten.get_mut(&key) else {
            return;
        };
        *kept = without(kept, usage);
        if *kept == Usage::default() {
            self.unwritten.remove(&key);
        }
    }
}

fn without(all: &Usage, part: &Usage) -> Usage {
    Usage {
        requests: all.requests.saturating_sub(part.requests),
        jobs: all.jobs.saturating_sub(part.jobs),
        upload_bytes: all.upload_bytes.saturating_sub(part.upload_bytes),
        pages: all.pages.saturating_sub(part.pages),
        inference_micros: all.inference_micros.saturating_sub(part.inference_micros),
        guest_micros: all.guest_micros.saturating_sub(part.guest_micros),
        searches: all.searches.saturating_sub(part.searches),
        refusals: all.refusals.saturating_sub(part.refusals),
        llm_calls: all.llm_calls.saturating_sub(part.llm_calls),
        llm_prompt_tokens: all.llm_prompt_tokens.saturating_sub(part.llm_prompt_tokens),
        llm_answer_tokens: all.llm_answer_tokens.saturating_sub(part.llm_answer_tokens),
        llm_cost_micros: all.llm_cost_micros.saturating_sub(part.llm_cost_micros),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::Memory;

    fn pages(pages: u64) -> Usage {
        Usage {
            pages,
            ..Usage::default()
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_or_counted_twice() {
        let (book, metering) = (Arc::new(Memory::default()), Metering::new());
        let (tenant, today) = (TenantId::single(), day_of(now_millis()));
        book.add(today, vec![(tenant.clone(), pages(5))]).await.unwrap();
        metering.used(&tenant, &pages(2));
        let standing = || async { metering.standing(&*book, &tenant, today).await.unwrap().pages };
        assert_eq!(standing().await, 7);
        book.fail(true);
        assert!(metering.write(&*book).await.is_err());
        assert_eq!(standing().await, 7);
        book.fail(false);
        metering.used(&tenant, &pages(1));
        metering.write(&*book).await.unwrap();
        metering.write(&*book).await.unwrap();
        assert_eq!(standing().await, 8);
        assert_eq!(
            metering.days(&*book, &tenant, today, today).await.unwrap()[&today].pages,
            8
        );
        assert_eq!(
            book.usage(&tenant, today, today).await.unwrap(),
            [(today, pages(8))]
        );
        assert!(metering.state.lock().unwritten.is_empty());
    }

    #[tokio::test]
    async fn what_is_gathered_is_written_at_the_end() {
        let (book, metering) = (Arc::new(Memory::default()), Metering::new());
        let (tenant, today) = (TenantId::single(), day_of(now_millis()));
        metering.used(&tenant, &pages(3));
        let stop = CancellationToken::new();
        stop.cancel();
        metering.keep_writing(&*book, stop).await;
        assert_eq!(
            book.usage(&tenant, today, today).await.unwrap(),
            [(today, pages(3))]
        );
    }
}
