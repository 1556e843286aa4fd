//! Reserves pages of tenants' quotas before they are worked on.
//!
//! A page counts as used once it has ended. Until then it is reserved, so that pages that are begun at the same time, by whichever
//! jobs, stay within the quota together. What a page takes of the models, the components and the disk is known only afterwards:
//! near such a limit, no more pages are begun at a time than are expected to fit, and the last of them may pass it by what it
//! takes beyond that.

use std::sync::Arc;

use async_trait::async_trait;
use weir_core::tenancy::{Quotas, Registry};
use weir_core::usage::{Day, QuotaExhausted, ReserveError, Usage, UsageBook, UsageQuotas, day_of};
use weir_core::{StorageError, TenantId};

use super::Metering;
use super::limits::HostQuotas;
use crate::app::now_millis;
use crate::metrics::TenantLabels;

/// Bytes that a page is expected to keep: its image, its lines and its passages.
const PAGE_BYTES: u64 = 1 << 20;

/// The limits on language models, with the amounts of `usage` that count against them.
fn llm_limits(limits: &Quotas, usage: &Usage) -> [(&'static str, Option<u64>, u64); 3] {
    [
        ("llm_calls_per_day", limits.llm_calls_per_day, usage.llm_calls),
        (
            "llm_tokens_per_day",
            limits.llm_tokens_per_day,
            usage.llm_tokens(),
        ),
        (
            "llm_cost_micros_per_day",
            limits.llm_cost_micros_per_day,
            usage.llm_cost_micros,
        ),
    ]
}

/// Whether a call that is expected to use so much fits beside the reserved ones, or else has to wait for one of them to end. The
/// last call may pass a limit by what it uses: how much that is only its end tells.
fn fits(limits: &Quotas, used: &Usage, reserved: &Usage, expected: &Usage) -> Result<bool, QuotaExhausted> {
    let amounts = [used, reserved, expected].map(|usage| llm_limits(limits, usage));
    let [used, reserved, expected] = amounts;
    let mut fits = true;
    for (((quota, limit, used), (_, _, reserved)), (_, _, expected)) in
        used.into_iter().zip(reserved).zip(expected)
    {
        let Some(limit) = limit else { continue };
        if used >= limit {
            return Err(QuotaExhausted { quota, limit });
        }
        let all = used.saturating_add(reserved).saturating_add(expected);
        fits &= all <= limit || reserved == 0;
    }
    Ok(fits)
}

/// Where limits and usage are read.
pub(crate) struct QuotaSources {
    /// Tenants with their quotas.
    pub(crate) registry: Arc<dyn Registry>,
    /// What tenants have used.
    pub(crate) usage: Arc<dyn UsageBook>,
    /// The quotas of the settings.
    pub(crate) host: HostQuotas,
    /// Names of tenants in metrics.
    pub(crate) labels: Arc<TenantLabels>,
}

/// What a tenant uses, against what it may use.
struct Standing {
    quota: &'static str,
    limit: u64,
    used: u64,
    /// What a page takes; `None` before the first page of the day has ended.
    of_a_page: Option<u64>,
}

/// How many pages may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Pages(u64),
    /// None before a page that is reserved has ended.
    Later,
}

impl Standing {
    fn is_exhausted(&self) -> bool {
        self.used >= self.limit
    }

    /// The pages that fit beside so many reserved ones.
    fn room(&self, reserved: u64) -> Room {
        let left = self.limit.saturating_sub(self.used);
        let fit = self.of_a_page.map_or(1, |each| left / each.max(1));
        match fit.saturating_sub(reserved) {
            // It has to be tried what the page takes.
            0 if reserved == 0 => Room::Pages(1),
            0 => Room::Later,
            pages => Room::Pages(pages),
        }
    }
}

/// The limits of a tenant that pages count against; `usage` is today's.
fn standings(limits: &Quotas, usage: &Usage, stored: u64, reserved: u64) -> Vec<Standing> {
    let mean = |amount: u64| amount.checked_div(usage.pages);
    let of = |quota, limit: Option<u64>, used, of_a_page| {
        limit.map(|limit| Standing {
            quota,
            limit,
            used,
            of_a_page,
        })
    };
    [
        // Each reserved page is one, so they are as good as used.
        of(
            "pages_per_day",
            limits.pages_per_day,
            usage.pages + reserved,
            None,
        ),
        of(
            "inference_millis_per_day",
            limits.inference_millis_per_day,
            usage.inference_micros / 1000,
            mean(usage.inference_micros / 1000),
        ),
        of(
            "guest_millis_per_day",
            limits.guest_millis_per_day,
            usage.guest_micros / 1000,
            mean(usage.guest_micros / 1000),
        ),
        of("stored_bytes", limits.stored_bytes, stored, Some(PAGE_BYTES)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Of `most` pages, those that may begin now beside the reserved ones.
fn grant(standings: &[Standing], reserved: u64, most: u64) -> Result<Room, QuotaExhausted> {
    let mut granted = most;
    for standing in standings {
        if standing.is_exhausted() {
            return Err(QuotaExhausted {
                quota: standing.quota,
                limit: standing.limit,
            });
        }
        let room = match standing.quota {
            "pages_per_day" => Room::Pages(standing.limit - standing.used),
            _ => standing.room(reserved),
        };
        match room {
            Room::Later => return Ok(Room::Later),
            Room::Pages(pages) => granted = granted.min(pages),
        }
    }
    Ok(Room::Pages(granted))
}

impl Metering {
    /// Reads limits and usage from here on; before, nothing is limited.
    pub(crate) fn limit(&self, sources: QuotaSources) {
        // A second server over the same metering has the same sources.
        let _ = self.sources.set(sources);
    }

    /// What a tenant has used on this day, and the bytes it keeps, if those are limited.
    async fn used_and_stored(
        &self,
        sources: &QuotaSources,
        tenant: &TenantId,
        limits: &Quotas,
        day: Day,
    ) -> Result<(Usage, u64), StorageError> {
        let book = sources.usage.as_ref();
        let stored = match limits.stored_bytes {
            Some(_) => book.stored_bytes(tenant).await?,
            None => 0,
        };
        let usage = self.standing(book, tenant, day).await?;
        Ok((usage, stored))
    }

    /// The quota that keeps a tenant with these limits from beginning a page, if one does.
    pub(crate) async fn exhausted(
        &self,
        tenant: &TenantId,
        limits: &Quotas,
    ) -> Result<Option<QuotaExhausted>, StorageError> {
        let Some(sources) = self.sources.get().filter(|_| limits_pages(limits)) else {
            return Ok(None);
        };
        let day = day_of(now_millis());
        let (usage, stored) = self.used_and_stored(sources, tenant, limits, day).await?;
        let reserved = self.reserved(tenant).pages;
        let standings = standings(limits, &usage, stored, reserved);
        Ok(grant(&standings, reserved, 1).err())
    }
}

fn limits_pages(limits: &Quotas) -> bool {
    [
        limits.pages_per_day,
        limits.stored_bytes,
        limits.inference_millis_per_day,
        limits.guest_millis_per_day,
    ]
    .iter()
    .any(Option::is_some)
}

#[async_trait]
impl UsageQuotas for Metering {
    async fn reserve_pages(&self, tenant: &TenantId, most: u32) -> Result<u32, ReserveError> {
        let Some(sources) = self.sources.get() else {
            return Ok(most);
        };
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let Some(record) = sources.registry.tenant(tenant).await? else {
                return Ok(most);
            };
            let limits = sources.host.limits(&record);
            if !limits_pages(&limits) {
                return Ok(most);
            }
            let day = day_of(now_millis());
            let (_, stored) = self.used_and_stored(sources, tenant, &limits, day).await?;
            let decided = self.reserve(tenant, day, |usage, reserved| {
                let standings = standings(&limits, usage, stored, reserved.pages);
                let room = grant(&standings, reserved.pages, u64::from(most))?;
                let pages = match room {
                    Room::Pages(pages) => pages,
                    Room::Later => 0,
                };
                let more = Usage {
                    pages,
                    ..Usage::default()
                };
                Ok::<_, QuotaExhausted>((more, room))
            });
            match decided.transpose()? {
                Some(Room::Pages(pages)) => return Ok(u32::try_from(pages).unwrap_or(most)),
                Some(Room::Later) => released.await,
                // It has been dropped from memory since it was read.
                None => {}
            }
        }
    }

    async fn reserve_llm_call(&self, tenant: &TenantId, expected: &Usage) -> Result<(), ReserveError> {
        let Some(sources) = self.sources.get() else {
            return Ok(());
        };
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            released.as_mut().enable();
            let Some(record) = sources.registry.tenant(tenant).await? else {
                return Ok(());
            };
            let limits = sources.host.limits(&record);
            let of_calls = llm_limits(&limits, &Usage::default());
            if of_calls.iter().all(|(_, limit, _)| limit.is_none()) {
                return Ok(());
            }
            let day = day_of(now_millis());
            self.standing(sources.usage.as_ref(), tenant, day).await?;
            let decided = self.reserve(tenant, day, |used, reserved| {
                let fits = fits(&limits, used, reserved, expected)?;
                let more = if fits { *expected } else { Usage::default() };
                Ok::<_, QuotaExhausted>((more, fits))
            });
            match decided.transpose()? {
                Some(true) => return Ok(()),
                Some(false) => released.await,
                // It has been dropped from memory since it was read.
                None => {}
            }
        }
    }

    fn release(&self, tenant: &TenantId, reserved: &Usage) {
        self.give_back(tenant, reserved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(
        limits: &Quotas,
        usage: &Usage,
        stored: u64,
        reserved: u64,
        most: u64,
    ) -> Result<Room, &'static str> {
        let standings = standings(limits, usage, stored, reserved);
        grant(&standings, reserved, most).map_err(|exhausted| exhausted.quota)
    }

    #[test]
    fn reserved_pages_count_against_the_pages_of_the_day() {
        let limits = Quotas {
            pages_per_day: Some(10),
            ..Quotas::default()
        };
        let used = |pages| Usage {
            pages,
            ..Usage::default()
        };
        assert_eq!(room(&limits, &used(0), 0, 0, 8), Ok(Room::Pages(8)));
        assert_eq!(room(&limits, &used(4), 0, 4, 8), Ok(Room::Pages(2)));
        assert_eq!(room(&limits, &used(4), 0, 6, 8), Err("pages_per_day"));
        assert_eq!(room(&limits, &used(12), 0, 0, 8), Err("pages_per_day"));
        assert_eq!(room(&Quotas::default(), &used(12), 0, 0, 8), Ok(Room::Pages(8)));
    }

    #[test]
    fn pages_that_are_expected_to_fit_begin_together() {
        let limits = Quotas {
            inference_millis_per_day: Some(1000),
            ..Quotas::default()
        };
        let used = |pages, millis: u64| Usage {
            pages,
            inference_micros: millis * 1000,
            ..Usage::default()
        };
        // The first page of the day shows what a page takes.
        assert_eq!(room(&limits, &used(0, 0), 0, 0, 8), Ok(Room::Pages(1)));
        assert_eq!(room(&limits, &used(0, 0), 0, 1, 8), Ok(Room::Later));
        assert_eq!(room(&limits, &used(2, 200), 0, 0, 50), Ok(Room::Pages(8)));
        assert_eq!(room(&limits, &used(2, 200), 0, 8, 50), Ok(Room::Later));
        assert_eq!(room(&limits, &used(2, 950), 0, 0, 50), Ok(Room::Pages(1)));
        assert_eq!(
            room(&limits, &used(2, 1000), 0, 0, 50),
            Err("inference_millis_per_day")
        );
    }

    #[test]
    fn calls_to_language_models_fit_beside_the_reserved_ones() {
        let limits = Quotas {
            llm_calls_per_day: Some(3),
            llm_tokens_per_day: Some(1000),
            ..Quotas::default()
        };
        let usage = |llm_calls, llm_prompt_tokens| Usage {
            llm_calls,
            llm_prompt_tokens,
            ..Usage::default()
        };
        let one = usage(1, 400);
        let fits = |used, reserved| fits(&limits, &used, &reserved, &one).map_err(|error| error.quota);
        assert_eq!(fits(usage(0, 0), usage(0, 0)), Ok(true));
        assert_eq!(fits(usage(0, 0), usage(1, 400)), Ok(true));
        assert_eq!(
            fits(usage(0, 0), usage(2, 800)),
            Ok(false),
            "until one of them ends"
        );
        assert_eq!(fits(usage(2, 900), usage(0, 0)), Ok(true), "nothing is reserved");
        assert_eq!(fits(usage(3, 900), usage(0, 0)), Err("llm_calls_per_day"));
        assert_eq!(fits(usage(2, 1000), usage(0, 0)), Err("llm_tokens_per_day"));
    }

    #[test]
    fn pages_stop_where_the_stored_bytes_do() {
        let limits = Quotas {
            stored_bytes: Some(10 * PAGE_BYTES),
            ..Quotas::default()
        };
        let none = Usage::default();
        assert_eq!(room(&limits, &none, 0, 0, 50), Ok(Room::Pages(10)));
        assert_eq!(room(&limits, &none, 9 * PAGE_BYTES, 1, 50), Ok(Room::Later));
        assert_eq!(room(&limits, &none, 10 * PAGE_BYTES, 0, 50), Err("stored_bytes"));
    }
}
