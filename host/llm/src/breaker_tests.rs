use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct SimulatedProvider {
    breaker: Breaker,
    now: Instant,
    transitions: Vec<BreakerTransition>,
}

impl SimulatedProvider {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            breaker: Breaker::new(Some(BreakerConfig::default()), now),
            now,
            transitions: Vec::new(),
        }
    }

    /// Makes a call if the breaker allows it. Returns whether it did.
    fn try_call(&mut self, signal: HealthSignal, seconds: u32, has_alternative: bool) -> bool {
        self.transitions.extend(self.breaker.half_open_if_due(self.now));
        if !self.breaker.allows_call() {
            return false;
        }
        let generation = self.breaker.record_call_start();
        self.now += seconds * SECOND;
        let change =
            self.breaker
                .record_call_end(self.now, generation, signal, seconds * SECOND, has_alternative);
        self.transitions.extend(change);
        true
    }

    fn try_calls(
        &mut self,
        count: usize,
        signal: HealthSignal,
        seconds: u32,
        has_alternative: bool,
    ) -> usize {
        (0..count)
            .filter(|_| self.try_call(signal, seconds, has_alternative))
            .count()
    }

    fn state(&self) -> BreakerState {
        self.breaker.state()
    }
}

#[test]
fn opens_when_a_quarter_of_the_calls_fail() {
    let mut provider = SimulatedProvider::new();
    for _ in 0..30 {
        provider.try_calls(4, HealthSignal::Healthy, 1, true);
        provider.try_call(HealthSignal::Failing, 1, true);
    }
    assert_eq!(provider.state(), BreakerState::Closed);
    let mut provider = SimulatedProvider::new();
    provider.try_calls(20, HealthSignal::Healthy, 1, true);
    assert_eq!(
        provider.try_calls(20, HealthSignal::Failing, 1, true),
        7,
        "7 of 27 calls exceed a quarter"
    );
    assert_eq!(
        provider.transitions,
        [BreakerTransition::Opened("7 of the last 27 calls failed".into())]
    );
    // The breaker opens even without another provider.
    let mut provider = SimulatedProvider::new();
    assert_eq!(
        provider.try_calls(20, HealthSignal::Failing, 1, false),
        MIN_CALLS_FOR_ERROR_RATIO
    );
}

#[test]
fn slow_calls_and_backlog_open_only_with_an_alternative_provider() {
    for (has_alternative, state) in [(false, BreakerState::Closed), (true, BreakerState::Open)] {
        let mut slow = SimulatedProvider::new();
        slow.try_calls(30, HealthSignal::Healthy, 31, has_alternative);
        assert_eq!(slow.state(), state);
        let mut crowded = SimulatedProvider::new();
        let now = crowded.now;
        assert_eq!(
            crowded.breaker.open_if_many_in_backoff(now, 14, has_alternative),
            None
        );
        crowded.breaker.open_if_many_in_backoff(now, 15, has_alternative);
        assert_eq!(crowded.state(), state);
    }
    let mut nearly = SimulatedProvider::new();
    for _ in 0..20 {
        nearly.try_calls(24, HealthSignal::Healthy, 29, true);
        nearly.try_call(HealthSignal::Healthy, 300, true);
    }
    assert_eq!(
        nearly.state(),
        BreakerState::Closed,
        "only one call in twenty-five is slow"
    );
}

#[test]
fn half_open_breaker_closes_after_three_successful_probes() {
    let mut provider = SimulatedProvider::new();
    provider.try_calls(8, HealthSignal::Failing, 1, true);
    let opened = provider.now;
    while !provider.try_call(HealthSignal::Healthy, 1, true) {
        provider.now += SECOND;
    }
    assert_eq!(
        provider.now.duration_since(opened).as_secs(),
        121,
        "120 s open and 1 s for the call"
    );
    assert_eq!(provider.state(), BreakerState::HalfOpen);
    let passes: Vec<_> = (0..5)
        .map_while(|_| {
            provider
                .breaker
                .allows_call()
                .then(|| provider.breaker.record_call_start())
        })
        .collect();
    assert_eq!(passes.len(), 2, "one probe has passed, two more are allowed");
    let now = provider.now;
    // A dropped probe does not count, and another may replace it.
    provider
        .breaker
        .record_call_end(now, passes[0], HealthSignal::Unknown, SECOND, true);
    assert!(provider.breaker.allows_call());
    provider
        .breaker
        .record_call_end(now, passes[1], HealthSignal::Healthy, SECOND, true);
    assert_eq!(provider.state(), BreakerState::HalfOpen);
    provider.try_call(HealthSignal::Healthy, 1, true);
    assert_eq!(provider.state(), BreakerState::Closed);
    assert_eq!(
        provider.transitions[1..],
        [BreakerTransition::HalfOpened, BreakerTransition::Closed]
    );
}

#[test]
fn failed_or_slow_probe_doubles_the_open_duration() {
    let mut provider = SimulatedProvider::new();
    provider.try_calls(8, HealthSignal::Failing, 1, true);
    for (probe, seconds, wait) in [
        (HealthSignal::Failing, 1, 240),
        (HealthSignal::Healthy, 25, 480),
        (HealthSignal::Failing, 1, 480),
    ] {
        provider.now = provider.breaker.open_until().unwrap();
        assert!(provider.try_call(probe, seconds, true));
        let until = provider.breaker.open_until().unwrap();
        assert_eq!(until.duration_since(provider.now).as_secs(), wait);
    }
    // The provider was healthy for the open duration, so the next failure starts at the first duration again.
    provider.now = provider.breaker.open_until().unwrap();
    provider.try_calls(3, HealthSignal::Healthy, 1, true);
    assert_eq!(provider.state(), BreakerState::Closed);
    provider.try_calls(12, HealthSignal::Healthy, 10, true);
    provider.try_calls(8, HealthSignal::Failing, 1, true);
    assert_eq!(
        provider
            .breaker
            .open_until()
            .unwrap()
            .duration_since(provider.now)
            .as_secs(),
        120
    );
}

#[test]
fn calls_started_before_a_transition_are_ignored() {
    let mut provider = SimulatedProvider::new();
    let early = provider.breaker.record_call_start();
    provider.try_calls(8, HealthSignal::Failing, 1, true);
    provider.now = provider.breaker.open_until().unwrap();
    provider.try_call(HealthSignal::Healthy, 1, true);
    let now = provider.now;
    assert_eq!(
        provider
            .breaker
            .record_call_end(now, early, HealthSignal::Failing, SECOND, true),
        None
    );
    assert_eq!(provider.state(), BreakerState::HalfOpen);
}

#[test]
fn disabled_breaker_never_opens() {
    let mut provider = SimulatedProvider::new();
    provider.breaker = Breaker::new(None, provider.now);
    assert_eq!(provider.try_calls(1000, HealthSignal::Failing, 100, true), 1000);
}

#[test]
fn flapping_provider_opens_at_most_once_per_open_duration() {
    let mut random = fastrand::Rng::with_seed(5);
    let mut provider = SimulatedProvider::new();
    let start = provider.now;
    let mut bad = false;
    while provider.now < start + 10_000 * SECOND {
        if random.u32(0..40) == 0 {
            bad = !bad;
        }
        let signal = if bad {
            HealthSignal::Failing
        } else {
            HealthSignal::Healthy
        };
        if !provider.try_call(signal, 1, true) {
            provider.now += SECOND;
        }
    }
    let opened = provider
        .transitions
        .iter()
        .filter(|change| matches!(change, BreakerTransition::Opened(_)))
        .count();
    assert!((2..=10_000 / 120).contains(&opened), "{opened}");
}
