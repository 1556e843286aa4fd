//! The parts of the sandbox that the kernel must enforce before a worker gets a PDF.
//!
//! Every version of landlock (from ABI 1, Linux 5.13) denies opening, creating, removing and executing files by path. Later versions
//! also deny TCP ports (ABI 4), device ioctls (ABI 5), and signals and abstract sockets (ABI 6). The seccomp filter denies all
//! of these as well, so partial enforcement of landlock suffices. The seccomp filter must be enforced completely.

use weir_core::error::RasterError;

use crate::protocol::{EnforcementLevel, SandboxStatus};

/// Names the missing parts; `None` if nothing is missing.
pub(crate) fn describe_missing_sandbox_parts(sandbox: SandboxStatus) -> Option<String> {
    let landlock = (sandbox.landlock == EnforcementLevel::None)
        .then_some("landlock (Linux 5.13 or later, with landlock in its list of security modules)");
    let seccomp = (sandbox.seccomp != EnforcementLevel::Full).then_some("seccomp filters");
    let all: Vec<&str> = landlock.into_iter().chain(seccomp).collect();
    (!all.is_empty()).then(|| all.join(" and "))
}

/// The error of a worker that may not start because parts of its sandbox are missing.
pub(crate) fn sandbox_unavailable_error(missing: &str) -> RasterError {
    RasterError::Unavailable {
        what: "the sandbox of PDF workers".into(),
        remedy: format!(
            "the kernel or the container does not support {missing}: enable it, or set raster.sandbox_mode=best-effort"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_landlock_suffices_and_partial_seccomp_does_not() {
        let of = |landlock, seccomp| describe_missing_sandbox_parts(SandboxStatus { landlock, seccomp });
        assert_eq!(of(EnforcementLevel::Full, EnforcementLevel::Full), None);
        assert_eq!(of(EnforcementLevel::Partial, EnforcementLevel::Full), None);
        assert!(
            of(EnforcementLevel::None, EnforcementLevel::Full)
                .unwrap()
                .contains("landlock")
        );
        assert_eq!(
            of(EnforcementLevel::Full, EnforcementLevel::Partial).as_deref(),
            Some("seccomp filters")
        );
        assert!(
            of(EnforcementLevel::None, EnforcementLevel::None)
                .unwrap()
                .ends_with(" and seccomp filters")
        );
    }
}
