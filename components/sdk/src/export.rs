//! Exports a policy and calls its methods.

use std::cell::RefCell;
use std::sync::Once;
use std::thread::LocalKey;

/// Calls a method of the component's policy value, which is created at the first call. A panic ends the instance, so its message is
/// first written to the tenant's log.
pub fn call_policy<P: Default + 'static, R>(
    policy: &'static LocalKey<RefCell<P>>,
    method: impl FnOnce(&mut P) -> R,
) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("no message");
            let location = panic
                .location()
                .map(|location| format!("{}:{}: ", location.file(), location.line()));
            crate::log::error(&format!("panicked at {}{message}", location.unwrap_or_default()));
        }));
    });
    policy.with_borrow_mut(method)
}

/// Exports a type as the component's policy for one or several roles: `export!(Policy: Batching, Routing)`. The type implements the
/// trait of each named role, and [`Default`]. Use the macro once in a crate, whose `crate-type` is `cdylib`.
#[macro_export]
macro_rules! export {
    ($policy:ty: $($role:ident),+ $(,)?) => {
        $(const _: fn() = || {
            fn implements<P: $crate::__private::roles::$role + ::std::default::Default>() {}
            implements::<$policy>();
        };)+

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static POLICY: ::std::cell::RefCell<$policy> = ::std::default::Default::default();
            }

            struct Component;

            $($crate::__export_role!($role Component POLICY);)+
        };
    };
}

/// Exports the functions of a role.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_role {
    (Batching $component:ident $policy:ident) => {
        impl $crate::__private::batcher::exports::weir::pipeline::batching::Guest for $component {
            fn plan(situation: $crate::batching::Situation) -> $crate::batching::Batch {
                $crate::__private::call_policy(&$policy, |p| $crate::batching::Batching::plan(p, situation))
            }
        }
        $crate::__private::batcher::export!($component with_types_in $crate::__private::batcher);
    };
    (Routing $component:ident $policy:ident) => {
        impl $crate::__private::router::exports::weir::pipeline::routing::Guest for $component {
            fn document(facts: $crate::routing::DocumentFacts) -> $crate::routing::DocumentRoute {
                $crate::__private::call_policy(&$policy, |p| $crate::routing::Routing::document(p, facts))
            }
            fn page(document: $crate::DocumentId, facts: $crate::PageFacts) -> $crate::routing::PageRoute {
                $crate::__private::call_policy(&$policy, |p| $crate::routing::Routing::page(p, document, facts))
            }
            fn failed(failure: $crate::routing::Failure) -> $crate::routing::Verdict {
                $crate::__private::call_policy(&$policy, |p| $crate::routing::Routing::failed(p, failure))
            }
        }
        $crate::__private::router::export!($component with_types_in $crate::__private::router);
    };
    (Chunking $component:ident $policy:ident) => {
        impl $crate::__private::chunker::exports::weir::pipeline::chunking::Guest for $component {
            fn passages(source: $crate::chunking::PassageSource) -> ::std::vec::Vec<$crate::Range> {
                $crate::__private::call_policy(&$policy, |p| $crate::chunking::Chunking::passages(p, source))
            }
            fn summarize(section: $crate::chunking::Section) -> $crate::chunking::SummaryPlan {
                $crate::__private::call_policy(&$policy, |p| $crate::chunking::Chunking::summarize(p, section))
            }
        }
        $crate::__private::chunker::export!($component with_types_in $crate::__private::chunker);
    };
    (Progress $component:ident $policy:ident) => {
        impl $crate::__private::reporter::exports::weir::pipeline::progress::Guest for $component {
            fn observe(at_millis: u64, event: $crate::progress::Event) -> ::std::vec::Vec<$crate::progress::Update> {
                $crate::__private::call_policy(&$policy, |p| $crate::progress::Progress::observe(p, at_millis, event))
            }
        }
        $crate::__private::reporter::export!($component with_types_in $crate::__private::reporter);
    };
}
