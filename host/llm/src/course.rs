//! What follows from a fault: for the question, and for what is thought of the provider.

use weir_core::language::Fault;

/// What is done with a question after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    /// The same provider is asked again, after a pause.
    Again,
    /// This provider will not answer it, another may.
    Elsewhere,
    /// It is the question's fault: nobody else is asked.
    GiveUp,
}

/// What a call says of the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It works.
    Good,
    /// It does not.
    Bad,
    /// It takes long: nobody knows whether it would have answered.
    Slow,
    /// Nothing either way.
    Open,
}

/// What is done with the question.
pub(crate) const fn course(fault: &Fault) -> Course {
    match fault {
        Fault::Unreachable(_)
        | Fault::RateLimited { .. }
        | Fault::Server { .. }
        | Fault::Unintelligible(_)
        | Fault::BrokenOff
        | Fault::Empty
        | Fault::Stalled { .. }
        | Fault::Late { .. } => Course::Again,
        Fault::Denied { .. }
        | Fault::Refused { .. }
        | Fault::TooLong { .. }
        | Fault::NoAnswer
        | Fault::NothingToQuote
        | Fault::Filtered
        | Fault::Declined
        | Fault::Parroted
        | Fault::Looped
        | Fault::Failed(_) => Course::Elsewhere,
        Fault::CutShort => Course::GiveUp,
    }
}

/// Whether time may heal it. What does not is the same tomorrow, so nobody waits for it.
pub(crate) const fn passes(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::Denied { .. }
            | Fault::Refused { .. }
            | Fault::TooLong { .. }
            | Fault::NoAnswer
            | Fault::NothingToQuote
            | Fault::Filtered
            | Fault::Declined
            | Fault::Parroted
            | Fault::Looped
            | Fault::CutShort
    )
}

/// Whether the question may be why: a model can choke on one page for ever and answer all others.
pub(crate) const fn may_be_the_questions(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Server { after: None, .. }
            | Fault::Unintelligible(_)
            | Fault::BrokenOff
            | Fault::Empty
            | Fault::Stalled { .. }
            | Fault::Late { .. }
    )
}

/// What is thought of the provider. Being asked too often is our fault, and a question it does not take says that it reads.
/// A denial says nothing to the breaker: the provider pauses by itself after one.
pub(crate) const fn verdict(fault: &Fault) -> Verdict {
    match fault {
        Fault::RateLimited { .. } | Fault::Denied { .. } => Verdict::Open,
        fault if !passes(fault) => Verdict::Good,
        _ => Verdict::Bad,
    }
}

/// Whether fewer calls at once might have gone well.
pub(crate) const fn overloaded(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Late { .. }
            | Fault::Stalled { .. }
            | Fault::RateLimited { after: None }
            | Fault::Server { status: 503, .. }
    )
}
