//! Tests of reservations of pages and of calls to language models.

use super::*;

fn allow_pages_with(
    limits: &Quotas,
    usage: &Usage,
    stored: u64,
    reserved: u64,
    most: u64,
) -> Result<AllowedPagesOrWait, &'static str> {
    let quota_usages = list_page_quota_usage(limits, usage, stored, reserved);
    count_pages_within_quotas(&quota_usages, reserved, most).map_err(|exhausted| exhausted.quota)
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
    assert_eq!(
        allow_pages_with(&limits, &used(0), 0, 0, 8),
        Ok(AllowedPagesOrWait::Pages(8))
    );
    assert_eq!(
        allow_pages_with(&limits, &used(4), 0, 4, 8),
        Ok(AllowedPagesOrWait::Pages(2))
    );
    assert_eq!(allow_pages_with(&limits, &used(4), 0, 6, 8), Err("pages_per_day"));
    assert_eq!(
        allow_pages_with(&limits, &used(12), 0, 0, 8),
        Err("pages_per_day")
    );
    assert_eq!(
        allow_pages_with(&Quotas::default(), &used(12), 0, 0, 8),
        Ok(AllowedPagesOrWait::Pages(8))
    );
}

#[test]
fn pages_that_are_expected_to_fit_start_together() {
    let limits = Quotas {
        inference_millis_per_day: Some(1000),
        ..Quotas::default()
    };
    let used = |pages, millis: u64| Usage {
        pages,
        inference_micros: millis * 1000,
        ..Usage::default()
    };
    // The first page of the day shows the usage of a page.
    assert_eq!(
        allow_pages_with(&limits, &used(0, 0), 0, 0, 8),
        Ok(AllowedPagesOrWait::Pages(1))
    );
    assert_eq!(
        allow_pages_with(&limits, &used(0, 0), 0, 1, 8),
        Ok(AllowedPagesOrWait::AfterRelease)
    );
    assert_eq!(
        allow_pages_with(&limits, &used(2, 200), 0, 0, 50),
        Ok(AllowedPagesOrWait::Pages(8))
    );
    assert_eq!(
        allow_pages_with(&limits, &used(2, 200), 0, 8, 50),
        Ok(AllowedPagesOrWait::AfterRelease)
    );
    assert_eq!(
        allow_pages_with(&limits, &used(2, 950), 0, 0, 50),
        Ok(AllowedPagesOrWait::Pages(1))
    );
    assert_eq!(
        allow_pages_with(&limits, &used(2, 1000), 0, 0, 50),
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
    let fits = |used, reserved| llm_call_fits(&limits, &used, &reserved, &one).map_err(|error| error.quota);
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
fn exhausted_stored_bytes_quota_stops_pages() {
    let limits = Quotas {
        stored_bytes: Some(10 * EXPECTED_BYTES_PER_PAGE),
        ..Quotas::default()
    };
    let none = Usage::default();
    assert_eq!(
        allow_pages_with(&limits, &none, 0, 0, 50),
        Ok(AllowedPagesOrWait::Pages(10))
    );
    assert_eq!(
        allow_pages_with(&limits, &none, 9 * EXPECTED_BYTES_PER_PAGE, 1, 50),
        Ok(AllowedPagesOrWait::AfterRelease)
    );
    assert_eq!(
        allow_pages_with(&limits, &none, 10 * EXPECTED_BYTES_PER_PAGE, 0, 50),
        Err("stored_bytes")
    );
}
