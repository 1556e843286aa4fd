//! The rule on written cases, and how often it is wrong on noise as jobs make it.

use super::*;

/// So many jobs of ten pages, each of which shows this, a millisecond after the other.
fn jobs(many: usize, each: Showing) -> Vec<Shown> {
    let after = |n: usize| n as u64;
    (0..many)
        .map(|n| Shown {
            at_millis: after(n),
            showing: each,
        })
        .collect()
}

/// Ten pages in a second.
const GOOD: Showing = Showing {
    jobs: 1,
    failed_jobs: 0,
    pages: 10,
    failed_pages: 0,
    calls: 30,
    traps: 0,
    timeouts: 0,
    millis: 1000,
};

fn judged(judge: &Judge, canary: &[Shown], stable: &[Shown]) -> Judgement {
    match judge.look(canary) {
        Some(look) => {
            let mut beside: Vec<Shown> = stable.to_vec();
            beside.retain(|job| job.at_millis <= look.until_millis());
            beside.truncate(look.stable_jobs() as usize);
            look.judge(&beside)
        }
        None => Judgement::Wait(String::new()),
    }
}

#[test]
fn a_canary_is_judged_by_what_it_did_worse() {
    let judge = Judge::default();
    let good = |many| jobs(many, GOOD);
    assert!(judge.look(&good(4)).is_none());
    assert!(matches!(judged(&judge, &good(19), &good(80)), Judgement::Wait(_)));
    assert!(matches!(judged(&judge, &good(40), &good(4)), Judgement::Wait(_)));
    match judged(&judge, &good(40), &good(40)) {
        Judgement::Promote(reason) => assert!(reason.starts_with("after 40 jobs beside 40"), "{reason}"),
        other => panic!("{other:?}"),
    }
    let worse = [
        ("trap", Showing { traps: 1, ..GOOD }),
        (
            "fail",
            Showing {
                failed_jobs: 1,
                ..GOOD
            },
        ),
        ("late", Showing { timeouts: 9, ..GOOD }),
        (
            "skipped",
            Showing {
                failed_pages: 2,
                ..GOOD
            },
        ),
        (
            "% against the stable revision (40 jobs",
            Showing { millis: 1150, ..GOOD },
        ),
    ];
    for (what, showing) in worse {
        let canary = jobs(40, showing);
        match judged(&judge, &canary, &good(80)) {
            Judgement::RollBack(reason) => assert!(reason.contains(what), "{reason}"),
            other => panic!("{what}: {other:?}"),
        }
        // Of both it is no reason, though where both do badly it takes longer to tell them apart.
        let all = judged(&judge, &jobs(320, showing), &jobs(320, showing));
        assert!(matches!(all, Judgement::Promote(_)), "{what}: {all:?}");
    }
}

#[test]
fn a_disaster_is_seen_after_a_few_jobs_and_one_failure_is_none() {
    let judge = Judge::default();
    let failing = Showing {
        failed_jobs: 1,
        ..GOOD
    };
    let stable = jobs(40, GOOD);
    assert!(matches!(
        judged(&judge, &jobs(10, failing), &stable),
        Judgement::RollBack(_)
    ));
    // Also while it has no company yet.
    assert!(matches!(
        judged(&judge, &jobs(5, failing), &[]),
        Judgement::RollBack(_)
    ));
    let slow = Showing {
        millis: 20_000,
        ..GOOD
    };
    assert!(matches!(
        judged(&judge, &jobs(10, slow), &stable),
        Judgement::RollBack(_)
    ));
    // One of five is a fifth, four times of what is allowed, and may be a broken document.
    let mut one = jobs(20, GOOD);
    one[3].showing = failing;
    for seen in [5, 10, 20] {
        let said = judged(&judge, &one[..seen], &stable);
        assert!(matches!(said, Judgement::Wait(_)), "{seen}: {said:?}");
    }
}

#[test]
fn a_look_sees_the_same_whenever_it_is_asked() {
    let judge = Judge::default();
    let (mut canary, mut stable) = (jobs(20, GOOD), jobs(80, GOOD));
    canary[7].showing.traps = 1;
    let first = judged(&judge, &canary, &stable);
    assert!(matches!(first, Judgement::Wait(_)), "{first:?}");
    // Until the fortieth job, whatever the others show.
    canary.extend(jobs(19, Showing { traps: 10, ..GOOD }));
    stable.extend(
        jobs(9, Showing { millis: 9, ..GOOD })
            .into_iter()
            .map(|job| Shown { at_millis: 30, ..job }),
    );
    assert_eq!(judged(&judge, &canary, &stable), first);
    canary.push(canary[38]);
    assert_ne!(judged(&judge, &canary, &stable), first);
    // Jobs that were cancelled are none.
    let cancelled = jobs(40, Showing { jobs: 0, ..GOOD });
    assert!(judge.look(&cancelled).is_none());
}

#[test]
fn a_trial_ends() {
    let asked = |jobs| Judge {
        jobs,
        ..Judge::default()
    };
    assert_eq!(asked(20).looks(), [5, 10, 20, 40, 80, 160, 320]);
    assert_eq!(asked(1).looks(), [1, 2, 4, 8, 16]);
    assert_eq!(asked(7).looks(), [7, 14, 28, 56, 112]);
    assert_eq!(
        (asked(20).most_jobs(), asked(u32::MAX).most_jobs()),
        (320, 16_000)
    );
    // Nothing that was made says anything about pace: what is seen at the end decides.
    let nothing = Showing {
        pages: 0,
        millis: 0,
        ..GOOD
    };
    let said = |many| judged(&asked(20), &jobs(many, nothing), &jobs(many, nothing));
    assert!(matches!(said(160), Judgement::Wait(_)), "{:?}", said(160));
    assert!(matches!(said(320), Judgement::Promote(_)), "{:?}", said(320));
    // One that has no company waits for it.
    let last = judged(&asked(20), &jobs(320, GOOD), &[]);
    assert!(matches!(last, Judgement::Wait(_)), "{last:?}");
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused() {
    assert_eq!(Judge::default().check(), Ok(()));
    for wrong in [
        Judge {
            jobs: 0,
            ..Judge::default()
        },
        Judge {
            slower: f64::NAN,
            ..Judge::default()
        },
        Judge {
            traps: -0.1,
            ..Judge::default()
        },
    ] {
        assert!(wrong.check().is_err());
    }
}

/// Numbers that look drawn at random (SplitMix64), the same ones each time.
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    fn by_chance(&mut self, chance: f64) -> bool {
        self.share() < chance
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

/// What makes a revision another than the stable one.
#[derive(Clone, Copy)]
struct Kind {
    /// Time per page.
    slower: f64,
    /// Pages that trap.
    traps: f64,
}

const FINE: Kind = Kind {
    slower: 1.0,
    traps: 0.0,
};

/// What jobs come.
#[derive(Clone, Copy)]
struct Load {
    /// Most pages of a job.
    pages: u64,
    /// Jobs of scans, the pages of which take thirty times as long.
    scans: f64,
    /// Jobs that fail, and pages on which any revision's component traps, in the one document of twenty that it cannot read.
    broken: f64,
}

/// A host that is now busy, now idle: its pace wanders (an AR(1) process of a quarter), each job's differs by a fifth from it, and
/// each has fifty milliseconds of its own.
fn trial(kind: Kind, load: Load, percent: f64, draw: &mut Draw) -> (Judgement, usize) {
    let judge = Judge::default();
    let (mut canary, mut stable, mut host) = (Vec::new(), Vec::new(), 0.0);
    let mut seen = None;
    let looks = judge.looks();
    for at_millis in 0.. {
        host = 0.9 * host + 0.11 * draw.normal();
        let given = draw.by_chance(percent);
        let Kind { slower, traps } = if given { kind } else { FINE };
        let pages = 1 + draw.below(load.pages);
        let scan = if draw.by_chance(load.scans) { 30.0 } else { 1.0 };
        let pace = 70.0 * scan * slower * (host + 0.2 * draw.normal()).exp();
        let broken = draw.by_chance(0.05);
        let trapped = (0..pages).filter(|_| draw.by_chance(traps) || broken && draw.by_chance(0.3));
        let trapped = trapped.count() as u64;
        let showing = Showing {
            jobs: 1,
            failed_jobs: u64::from(draw.by_chance(load.broken)),
            pages,
            calls: 3 * pages,
            traps: trapped,
            millis: (50.0 * slower * (host + 0.2 * draw.normal()).exp() + pace * pages as f64) as u64,
            ..Showing::default()
        };
        let arm = if given { &mut canary } else { &mut stable };
        arm.push(Shown { at_millis, showing });
        let look = looks.contains(&canary.len()).then_some(canary.len());
        if given && look != seen {
            seen = look.or(seen);
            match judged(&judge, &canary, &stable) {
                Judgement::Wait(_) => {}
                ended => return (ended, canary.len()),
            }
        }
        assert!(canary.len() <= judge.most_jobs() as usize, "it was never judged");
    }
    unreachable!("numbers go on");
}

/// Shares rolled back and promoted, and the median of the jobs it took.
fn outcomes(kind: Kind, load: Load, percent: f64) -> (f64, f64, usize) {
    const TRIALS: usize = 200;
    let mut draw = Draw(20_261_121);
    let ended: Vec<_> = (0..TRIALS)
        .map(|_| trial(kind, load, percent, &mut draw))
        .collect();
    let count = |wanted: fn(&Judgement) -> bool| ended.iter().filter(|(end, _)| wanted(end)).count();
    let mut took: Vec<usize> = ended.iter().map(|(_, jobs)| *jobs).collect();
    took.sort_unstable();
    (
        count(|end| matches!(end, Judgement::RollBack(_))) as f64 / TRIALS as f64,
        count(|end| matches!(end, Judgement::Promote(_))) as f64 / TRIALS as f64,
        took[TRIALS / 2],
    )
}

const LETTERS: Load = Load {
    pages: 3,
    scans: 0.0,
    broken: 0.01,
};
const BOOKS: Load = Load {
    pages: 40,
    scans: 0.0,
    broken: 0.01,
};
const MIXED: Load = Load {
    pages: 10,
    scans: 0.1,
    broken: 0.02,
};

/// The rates that are seen are in the rule's own documentation.
#[test]
fn noise_undoes_few_good_canaries() {
    for (load, percent) in [(LETTERS, 0.5), (LETTERS, 0.1), (BOOKS, 0.2), (MIXED, 0.2)] {
        let (undone, promoted, jobs) = outcomes(FINE, load, percent);
        println!("fine: {undone} undone, {promoted} promoted, {jobs} jobs");
        assert!(undone <= 0.05, "{undone}");
        assert!(promoted >= 0.95, "{promoted}");
    }
}

#[test]
fn a_page_that_takes_fifteen_percent_longer_is_found() {
    let slow = Kind { slower: 1.15, ..FINE };
    for (load, percent) in [(LETTERS, 0.5), (LETTERS, 0.1), (BOOKS, 0.2), (MIXED, 0.2)] {
        let (undone, promoted, jobs) = outcomes(slow, load, percent);
        println!("slower: {undone} undone, {promoted} promoted, {jobs} jobs");
        assert!(promoted <= 0.1, "{promoted}");
    }
}

#[test]
fn traps_on_one_page_of_twenty_are_found() {
    let traps = Kind { traps: 0.05, ..FINE };
    for (load, percent) in [(LETTERS, 0.5), (LETTERS, 0.1), (BOOKS, 0.2), (MIXED, 0.2)] {
        let (undone, promoted, jobs) = outcomes(traps, load, percent);
        println!("traps: {undone} undone, {promoted} promoted, {jobs} jobs");
        assert!(promoted <= 0.05, "{promoted}");
    }
}
