use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Provider {
    breaker: Breaker,
    now: Instant,
    changes: Vec<Change>,
}

impl Provider {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            breaker: Breaker::new(Some(BreakerConfig::default()), now),
            now,
            changes: Vec::new(),
        }
    }

    /// A call, if it is let through.
    fn call(&mut self, verdict: Verdict, seconds: u32, others: bool) -> bool {
        self.changes.extend(self.breaker.tick(self.now));
        if !self.breaker.admits() {
            return false;
        }
        let pass = self.breaker.begin();
        self.now += seconds * SECOND;
        let change = self
            .breaker
            .end(self.now, pass, verdict, seconds * SECOND, others);
        self.changes.extend(change);
        true
    }

    fn calls(&mut self, count: usize, verdict: Verdict, seconds: u32, others: bool) -> usize {
        (0..count).filter(|_| self.call(verdict, seconds, others)).count()
    }

    fn state(&self) -> BreakerState {
        self.breaker.state()
    }
}

#[test]
fn a_quarter_of_the_calls_failing_opens_it_and_less_does_not() {
    let mut provider = Provider::new();
    for _ in 0..30 {
        provider.calls(4, Verdict::Good, 1, true);
        provider.call(Verdict::Bad, 1, true);
    }
    assert_eq!(provider.state(), BreakerState::Closed);
    let mut provider = Provider::new();
    provider.calls(20, Verdict::Good, 1, true);
    assert_eq!(
        provider.calls(20, Verdict::Bad, 1, true),
        7,
        "7 of 27 are a quarter"
    );
    assert_eq!(
        provider.changes,
        [Change::Opened("7 of its last 27 calls failed".into())]
    );
    // It opens without another to ask, too.
    let mut provider = Provider::new();
    assert_eq!(provider.calls(20, Verdict::Bad, 1, false), CALLS_FOR_ERRORS);
}

#[test]
fn slowness_and_crowds_open_it_only_if_another_can_answer() {
    for (others, state) in [(false, BreakerState::Closed), (true, BreakerState::Open)] {
        let mut slow = Provider::new();
        slow.calls(30, Verdict::Good, 31, others);
        assert_eq!(slow.state(), state);
        let mut crowded = Provider::new();
        let now = crowded.now;
        assert_eq!(crowded.breaker.crowded(now, 14, others), None);
        crowded.breaker.crowded(now, 15, others);
        assert_eq!(crowded.state(), state);
    }
    let mut nearly = Provider::new();
    for _ in 0..20 {
        nearly.calls(24, Verdict::Good, 29, true);
        nearly.call(Verdict::Good, 300, true);
    }
    assert_eq!(nearly.state(), BreakerState::Closed, "one in twenty-five is slow");
}

#[test]
fn it_is_left_alone_then_tried_with_three_calls_that_must_all_go_well() {
    let mut provider = Provider::new();
    provider.calls(8, Verdict::Bad, 1, true);
    let opened = provider.now;
    while !provider.call(Verdict::Good, 1, true) {
        provider.now += SECOND;
    }
    assert_eq!(
        provider.now.duration_since(opened).as_secs(),
        121,
        "120 and the call's own"
    );
    assert_eq!(provider.state(), BreakerState::HalfOpen);
    let passes: Vec<_> = (0..5)
        .map_while(|_| provider.breaker.admits().then(|| provider.breaker.begin()))
        .collect();
    assert_eq!(passes.len(), 2, "one passed, two may be under way");
    let now = provider.now;
    // One that is given up says nothing, and another takes its place.
    provider.breaker.end(now, passes[0], Verdict::Open, SECOND, true);
    assert!(provider.breaker.admits());
    provider.breaker.end(now, passes[1], Verdict::Good, SECOND, true);
    assert_eq!(provider.state(), BreakerState::HalfOpen);
    provider.call(Verdict::Good, 1, true);
    assert_eq!(provider.state(), BreakerState::Closed);
    assert_eq!(provider.changes[1..], [Change::HalfOpened, Change::Closed]);
}

#[test]
fn a_probe_that_fails_or_is_hardly_faster_opens_it_for_twice_as_long() {
    let mut provider = Provider::new();
    provider.calls(8, Verdict::Bad, 1, true);
    for (probe, seconds, wait) in [
        (Verdict::Bad, 1, 240),
        (Verdict::Good, 25, 480),
        (Verdict::Bad, 1, 480),
    ] {
        provider.now = provider.breaker.until().unwrap();
        assert!(provider.call(probe, seconds, true));
        let until = provider.breaker.until().unwrap();
        assert_eq!(until.duration_since(provider.now).as_secs(), wait);
    }
    // Well for as long: the next trouble is a first one again.
    provider.now = provider.breaker.until().unwrap();
    provider.calls(3, Verdict::Good, 1, true);
    assert_eq!(provider.state(), BreakerState::Closed);
    provider.calls(12, Verdict::Good, 10, true);
    provider.calls(8, Verdict::Bad, 1, true);
    assert_eq!(
        provider
            .breaker
            .until()
            .unwrap()
            .duration_since(provider.now)
            .as_secs(),
        120
    );
}

#[test]
fn what_began_before_a_change_does_not_count_after_it() {
    let mut provider = Provider::new();
    let early = provider.breaker.begin();
    provider.calls(8, Verdict::Bad, 1, true);
    provider.now = provider.breaker.until().unwrap();
    provider.call(Verdict::Good, 1, true);
    let now = provider.now;
    assert_eq!(provider.breaker.end(now, early, Verdict::Bad, SECOND, true), None);
    assert_eq!(provider.state(), BreakerState::HalfOpen);
}

#[test]
fn switched_off_it_never_opens() {
    let mut provider = Provider::new();
    provider.breaker = Breaker::new(None, provider.now);
    assert_eq!(provider.calls(1000, Verdict::Bad, 100, true), 1000);
}

#[test]
fn however_a_provider_flaps_it_changes_once_in_its_time_at_most() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut provider = Provider::new();
    let start = provider.now;
    let mut bad = false;
    while provider.now < start + 10_000 * SECOND {
        if random.u32(0..40) == 0 {
            bad = !bad;
        }
        let verdict = if bad { Verdict::Bad } else { Verdict::Good };
        if !provider.call(verdict, 1, true) {
            provider.now += SECOND;
        }
    }
    let opened = provider
        .changes
        .iter()
        .filter(|change| matches!(change, Change::Opened(_)))
        .count();
    assert!((2..=10_000 / 120).contains(&opened), "{opened}");
}
