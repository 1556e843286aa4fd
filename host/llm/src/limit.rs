//! How many calls are under way at a provider: as many as make it answer more, and no more.
//!
//! Beyond some number of calls at once a model answers no more questions a minute, only each of them later; further still it
//! times out. Where that knee is nobody states. It is found by climbing: with `n` calls always under way that take `t` each,
//! `n / t` are answered in a second (Little's law), and that is compared between neighbouring `n`, as .NET's thread pool
//! does for threads (Hellerstein, Morrison, Eilebrecht: "Optimizing Concurrency Levels in the .NET ThreadPool", 2009). Limits that
//! compare a latency with the least that was seen (TCP Vegas, Netflix's gradient) need a least that means something, and
//! answers of ten and of a thousand tokens have none in common.
//!
//! It starts with what the provider states and never goes beyond. A step down stays if it costs less than half of what it would
//! if every call counted; a step up, if it gains more than half. A step that does not stay is tried again after twice as many
//! calls, so that a provider without a knee costs next to nothing. When it is overloaded, by its word or by calls that are
//! late, a quarter of the calls goes at once.
//!
//! What is asked changes, too: whole chapters take longer than parts of them, and if the parts come just when a step down is
//! tried, the step seems to cost nothing. So before one stays, what was before is measured once more; if that has changed by
//! itself, nothing can be said of the step.

use tokio::time::Duration;

/// Calls between two steps, at first.
const REST: u32 = 100;
/// And at most.
const LONGEST_REST: u32 = 3200;
/// Calls that are measured before and after a step, however alike or unlike they are.
const LEAST: u32 = 8;
const MOST: u32 = 100;
/// Standard errors of the mean that what a step changes must exceed.
const CERTAIN: f64 = 4.0;
/// A provider that has become this much slower since the last step is looked at anew.
const SLOWER: f64 = 2.0 / 3.0;

/// By how much answers a second may change by themselves while a step is tried, for anything to be said of it.
const DRIFT: f64 = 0.2;

/// A step that is being tried.
struct Step {
    from: u32,
    /// Answers a second before it.
    before: f64,
    /// Where it went and answers a second there, once that is known and it seems worth staying; then it is measured again what it is
    /// compared with.
    there: Option<(u32, f64)>,
}

/// Names the limit under which a call began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// A provider's limit.
pub(crate) struct Limit {
    stated: u32,
    adaptive: bool,
    limit: u32,
    epoch: u64,
    /// Calls of this epoch that are not counted, because older ones were still under way beside them.
    settling: u32,
    measured: u32,
    seconds: f64,
    squares: f64,
    step: Option<Step>,
    upward: bool,
    rest: u32,
    next_rest: u32,
    /// Answers a second when the last step was judged.
    known: Option<f64>,
    /// The largest limit under which as many calls went well, and that was not left for a better one since.
    proven: u32,
}

impl Limit {
    /// Starts with as many as are stated, at least 1.
    pub(crate) fn new(stated: u32, adaptive: bool) -> Self {
        let stated = stated.max(1);
        Self {
            stated,
            adaptive,
            limit: stated,
            epoch: 0,
            settling: stated,
            measured: 0,
            seconds: 0.0,
            squares: 0.0,
            step: None,
            upward: false,
            rest: REST,
            next_rest: REST,
            known: None,
            proven: 0,
        }
    }

    /// Calls that may be under way.
    pub(crate) const fn now(&self) -> u32 {
        self.limit
    }

    /// What a call that begins now belongs to.
    pub(crate) const fn epoch(&self) -> Epoch {
        Epoch(self.epoch)
    }

    /// A call ended well. `busy`: how many were under way when it began, with itself.
    pub(crate) fn answered(&mut self, epoch: Epoch, busy: u32, took: Duration) {
        // With fewer under way than may be, it says nothing of the limit.
        if !self.adaptive || epoch.0 != self.epoch || busy < self.limit {
            return;
        }
        self.rest = self.rest.saturating_sub(1);
        if self.settling > 0 {
            self.settling -= 1;
            return;
        }
        self.measured += 1;
        self.seconds += took.as_secs_f64();
        self.squares += took.as_secs_f64().powi(2);
        if self.measured >= self.limit {
            self.proven = self.proven.max(self.limit);
        }
        if self.measured < self.enough() {
            return;
        }
        let rate = f64::from(self.limit) * f64::from(self.measured) / self.seconds.max(f64::MIN_POSITIVE);
        self.measure_anew();
        match self.step.take() {
            Some(step) => self.judge(step, rate),
            None => self.consider(rate),
        }
    }

    /// Calls it takes to tell what a step changes from what chance does.
    fn enough(&self) -> u32 {
        // What all steps are compared with is known best.
        let Some(step) = &self.step else { return MOST };
        let count = f64::from(self.measured);
        let mean = (self.seconds / count).max(f64::MIN_POSITIVE);
        let spread = (self.squares / count - mean * mean).max(0.0).sqrt() / mean;
        // A step is judged by whether it changes half of what it might.
        let half = f64::from(stride(step.from)) / f64::from(step.from) / 2.0;
        let enough = (CERTAIN * spread / half).powi(2).ceil() as u32;
        enough.max(2 * self.limit).clamp(LEAST, MOST)
    }

    fn measure_anew(&mut self) {
        (self.measured, self.seconds, self.squares) = (0, 0.0, 0.0);
    }

    fn judge(&mut self, step: Step, rate: f64) {
        let worth = |to: u32, there: f64, before: f64| {
            there >= before * f64::midpoint(1.0, f64::from(to) / f64::from(step.from))
        };
        let (to, there) = match step.there {
            None if worth(self.limit, rate, step.before) => {
                let there = Some((self.limit, rate));
                self.go(step.from);
                self.step = Some(Step { there, ..step });
                return;
            }
            None => return self.return_to(step.from, step.before),
            Some(there) => there,
        };
        if (rate / step.before - 1.0).abs() > DRIFT {
            // A later try may have better luck.
            self.known = Some(rate);
            self.rest = REST;
        } else if worth(to, there, f64::midpoint(step.before, rate)) {
            self.go(to);
            self.known = Some(there);
            self.proven = to;
            self.next_rest = REST;
            self.rest = 0;
            self.step_from(there);
        } else {
            self.return_to(step.from, rate);
        }
    }

    /// A step does not stay.
    fn return_to(&mut self, from: u32, before: f64) {
        self.known = Some(before);
        self.upward = !self.upward;
        if self.limit != from {
            self.go(from);
        }
        self.put_off();
    }

    fn consider(&mut self, rate: f64) {
        if self.known.is_some_and(|known| rate < known * SLOWER) {
            self.next_rest = REST;
            self.rest = 0;
        }
        if self.rest == 0 {
            self.known = Some(rate);
            self.step_from(rate);
        }
    }

    /// Tries the next step in the direction it goes, if there is one.
    fn step_from(&mut self, rate: f64) {
        if self.stated == 1 {
            return;
        }
        if self.limit >= self.stated {
            self.upward = false;
        } else if self.limit <= 1 {
            self.upward = true;
        }
        let from = self.limit;
        let by = stride(from);
        let to = if self.upward {
            (from + by).min(self.stated)
        } else {
            from - by
        };
        self.go(to);
        self.step = Some(Step {
            from,
            before: rate,
            there: None,
        });
    }

    /// A call was too much. `others`: some that began later were answered, so it is the load, and not
    /// that nobody is there; only then what it once bore does not count any more.
    pub(crate) fn overloaded(&mut self, epoch: Epoch, others: bool) {
        // Those that were under way together say it once.
        if !self.adaptive || epoch.0 != self.epoch {
            return;
        }
        match self.step.take() {
            Some(step) if step.from < self.limit => self.go(step.from),
            _ => self.go(self.limit - stride(self.limit)),
        }
        if others {
            self.proven = self.proven.min(self.limit);
        }
        self.upward = true;
        self.known = None;
        self.put_off();
    }

    /// The provider was not well and is again: what it bore before it may bear now. If it never bore anything, the limit that its
    /// trouble left is where it starts, and a step up comes soon.
    pub(crate) fn recovered(&mut self) {
        self.step = None;
        self.known = None;
        self.upward = true;
        self.next_rest = REST;
        self.rest = REST / 4;
        self.go(self.limit.max(self.proven));
    }

    fn put_off(&mut self) {
        self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
        self.rest = self.next_rest;
    }

    fn go(&mut self, to: u32) {
        self.limit = to.clamp(1, self.stated);
        self.epoch += 1;
        self.settling = self.limit;
        self.measure_anew();
    }
}

/// How far a step goes from so many calls.
fn stride(limit: u32) -> u32 {
    (limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    /// A provider that answers no more questions a second with more than `knee` calls, and none in time with more than `edge`.
    struct Model {
        knee: u32,
        edge: u32,
    }

    /// Keeps a provider as busy as may be with short and long answers; the limit after each answer, and how much longer it all took
    /// than it must.
    fn run(limit: &mut Limit, model: &Model, answers: usize, seed: u64) -> (Vec<u32>, f64) {
        let mut random = fastrand::Rng::with_seed(seed);
        asked(limit, model, answers, |_| {
            if random.bool() { 17_500.0 } else { 22_500.0 }
        })
    }

    /// The same with answers that take so many milliseconds.
    fn asked(
        limit: &mut Limit,
        model: &Model,
        answers: usize,
        mut millis: impl FnMut(usize) -> f64,
    ) -> (Vec<u32>, f64) {
        let mut under_way = BinaryHeap::new();
        let (mut now, mut limits, mut work) = (0_u64, Vec::new(), 0.0);
        while limits.len() < answers {
            while (under_way.len() as u32) < limit.now() {
                let busy = under_way.len() as u32 + 1;
                let base = millis(limits.len());
                work += base;
                let slower = (f64::from(busy) / f64::from(model.knee)).max(1.0);
                let late = busy > model.edge;
                let took = if late { 120_000 } else { (base * slower) as u64 };
                under_way.push(Reverse((now + took, took, late, busy, limit.epoch().0)));
            }
            let Some(Reverse((at, took, late, busy, epoch))) = under_way.pop() else {
                break;
            };
            now = at;
            if late {
                limit.overloaded(Epoch(epoch), true);
            } else {
                limit.answered(Epoch(epoch), busy, Duration::from_millis(took));
                limits.push(limit.now());
            }
        }
        let most = limit.stated.min(model.knee).min(model.edge);
        (limits, now as f64 * f64::from(most) / work)
    }

    #[test]
    fn it_finds_the_knee_from_above_and_stays_there() {
        for (stated, knee) in [(8, 4), (16, 4), (16, 6), (32, 3), (64, 20)] {
            let mut limit = Limit::new(stated, true);
            let (limits, _) = run(&mut limit, &Model { knee, edge: 1000 }, 5000, 1);
            let late = &limits[2000..];
            let mean = late.iter().sum::<u32>() as f64 / late.len() as f64;
            let near = (f64::from(knee) * 0.8..=f64::from(knee) * 1.6 + 1.0).contains(&mean);
            assert!(near, "stated {stated}, knee {knee}: {mean}");
            assert!(limits.iter().all(|limit| (1..=stated).contains(limit)));
        }
    }

    #[test]
    fn where_every_call_counts_it_costs_next_to_nothing() {
        for stated in [1, 2, 4, 5, 8] {
            for seed in 0..20 {
                let mut limit = Limit::new(stated, true);
                let model = Model { knee: 64, edge: 1000 };
                let (_, longer) = run(&mut limit, &model, 640, seed);
                assert!(
                    longer < 1.04,
                    "{stated} calls, seed {seed}: {longer} of what it must"
                );
            }
        }
    }

    #[test]
    fn who_comes_back_bears_what_it_bore_before() {
        let mut limit = Limit::new(4, true);
        run(&mut limit, &Model { knee: 64, edge: 1000 }, 60, 1);
        // Nobody is there for a while, and then a first call is answered, and another.
        for _ in 0..5 {
            limit.overloaded(limit.epoch(), false);
        }
        assert_eq!(limit.now(), 1);
        for _ in 0..3 {
            limit.answered(limit.epoch(), 1, Duration::from_secs(20));
        }
        limit.recovered();
        assert_eq!(limit.now(), 4);
        // But if others are answered, it is the load.
        limit.overloaded(limit.epoch(), true);
        limit.recovered();
        assert_eq!(limit.now(), 3);
    }

    #[test]
    fn a_change_of_what_is_asked_is_not_taken_for_a_knee() {
        for every in 100..400 {
            let mut limit = Limit::new(4, true);
            let model = Model { knee: 64, edge: 1000 };
            let (limits, longer) = asked(&mut limit, &model, 1000, |answer| {
                [22_500.0, 17_500.0, 2_000.0][answer / every % 3]
            });
            assert!(longer < 1.08, "every {every}: {longer} of what it must");
            let mean = f64::from(limits.iter().sum::<u32>()) / limits.len() as f64;
            assert!(mean > 3.7, "every {every}: {mean}");
        }
    }

    #[test]
    fn beyond_the_edge_it_gives_way_at_once() {
        let mut limit = Limit::new(8, true);
        let (limits, _) = run(&mut limit, &Model { knee: 64, edge: 4 }, 2000, 3);
        let above = limits.iter().filter(|limit| **limit > 4).count();
        assert!(
            above < 60,
            "{above} of 2000 answers came while more than 4 were allowed"
        );
        assert!(limits.iter().filter(|limit| **limit == 4).count() > 1800);
    }

    #[test]
    fn calls_that_were_late_together_count_once() {
        let mut limit = Limit::new(16, true);
        let epoch = limit.epoch();
        (0..16).for_each(|_| limit.overloaded(epoch, false));
        assert_eq!(limit.now(), 12);
        limit.recovered();
        limit.overloaded(epoch, false);
        assert_eq!(limit.now(), 12, "of before, and never more than it bore");
        let (limits, _) = run(&mut limit, &Model { knee: 64, edge: 64 }, 2000, 1);
        let all = limits.iter().filter(|limit| **limit == 16).count();
        assert!(all > 1500, "{all} of 2000 with all that it bears");
        for _ in 0..20 {
            limit.overloaded(limit.epoch(), false);
        }
        assert_eq!(limit.now(), 1);
        limit.recovered();
        assert_eq!(limit.now(), 16, "what it bore before");
    }

    #[test]
    fn switched_off_it_is_what_is_stated() {
        let mut limit = Limit::new(8, false);
        let (limits, _) = run(&mut limit, &Model { knee: 2, edge: 1000 }, 1000, 1);
        assert!(limits.iter().all(|limit| *limit == 8));
    }

    #[test]
    fn calls_with_others_missing_say_nothing() {
        let mut limit = Limit::new(4, true);
        for _ in 0..1000 {
            limit.answered(limit.epoch(), 3, Duration::from_secs(1));
        }
        assert_eq!((limit.now(), limit.measured), (4, 0));
    }
}
