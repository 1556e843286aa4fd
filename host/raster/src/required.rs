//! What of a worker's sandbox the kernel must offer before the worker is given a PDF.
//!
//! Landlock at any level (ABI 1, Linux 5.13) denies opening, making, removing and executing files by their path. What later
//! levels deny beyond that, TCP ports (4), ioctls of devices (5), signals and abstract sockets (6), the list of system calls
//! denies as well. So a landlock of which a kernel holds a part is enough. The list of system calls must hold as a whole.

use weir_core::error::RasterError;

use crate::protocol::{Lock, Sandbox};

/// Names what is missing; `None` if nothing is.
pub(crate) fn missing(sandbox: Sandbox) -> Option<String> {
    let landlock = (sandbox.landlock == Lock::None)
        .then_some("landlock (Linux 5.13 or later, with landlock in its list of security modules)");
    let seccomp = (sandbox.seccomp != Lock::Full).then_some("seccomp filters");
    let all: Vec<&str> = landlock.into_iter().chain(seccomp).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// The error of a worker that is not started for want of it.
pub(crate) fn refused(missing: &str) -> RasterError {
    RasterError::Unavailable {
        what: "the sandbox of PDF workers".into(),
        remedy: format!(
            "the kernel or the container does not offer {missing}: allow it, or set raster.sandbox=best-effort"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_of_landlock_is_enough_and_part_of_seccomp_is_not() {
        let of = |landlock, seccomp| missing(Sandbox { landlock, seccomp });
        assert_eq!(of(Lock::Full, Lock::Full), None);
        assert_eq!(of(Lock::Partial, Lock::Full), None);
        assert!(of(Lock::None, Lock::Full).unwrap().contains("landlock"));
        assert_eq!(of(Lock::Full, Lock::Partial).as_deref(), Some("seccomp filters"));
        assert!(
            of(Lock::None, Lock::None)
                .unwrap()
                .ends_with(" and seccomp filters")
        );
    }
}
