//! Sets of numbers that a tenant can have instead of the host's defaults: quotas and retention periods.

/// A set of numbers that a tenant can have instead of the host's defaults.
pub trait OverridableNumbers: Default {
    /// What one of the numbers is called.
    const KIND: &'static str;
    /// The names of the numbers, as in settings and errors.
    const NAMES: &'static [&'static str];

    /// The largest value of each.
    const MAX: u64;

    /// Returns a number by its name; `None` if there is no number of this name.
    fn by_name_mut(&mut self, name: &str) -> Option<&mut Option<u64>>;

    /// Sets a number, or with `None` lets it follow the host's default.
    fn set_by_name(&mut self, name: &str, value: Option<u64>) -> Result<(), OverrideError> {
        let Some(number) = self.by_name_mut(name) else {
            return Err(OverrideError::Unknown {
                kind: Self::KIND,
                name: name.to_owned(),
                names: Self::NAMES.join(", "),
            });
        };
        if value.is_some_and(|value| value > Self::MAX) {
            return Err(OverrideError::TooLarge {
                kind: Self::KIND,
                name: name.to_owned(),
                max: Self::MAX,
            });
        }
        *number = value;
        Ok(())
    }
}

/// A number that a tenant cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// There is no number of this name.
    #[error("there is no {kind} '{name}': use one of {names}")]
    Unknown {
        /// What the numbers are called.
        kind: &'static str,
        /// The given name.
        name: String,
        /// All names.
        names: String,
    },
    /// The number is too large.
    #[error("{kind} {name} must be at most {max}; 0 means no limit")]
    TooLarge {
        /// What the numbers are called.
        kind: &'static str,
        /// The given name.
        name: String,
        /// The largest value.
        max: u64,
    },
}

macro_rules! overridable_numbers {
    ($(#[doc = $type_doc:literal])+ $type:ident, $kind:literal, at most $max:expr;
     $($(#[doc = $doc:literal])+ $field:ident => $name:literal;)*) => {
        $(#[doc = $type_doc])+
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        // A later version may have stored more of them.
        #[serde(default)]
        pub struct $type {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<u64>,)*
        }

        impl $crate::overridable_numbers::OverridableNumbers for $type {
            const KIND: &'static str = $kind;
            const NAMES: &'static [&'static str] = &[$($name),*];
            const MAX: u64 = $max;

            fn by_name_mut(&mut self, name: &str) -> Option<&mut Option<u64>> {
                match name {
                    $($name => Some(&mut self.$field),)*
                    _ => None,
                }
            }
        }

        impl $type {
            /// Returns these numbers, with those of `host` where they are `None`.
            #[must_use]
            pub fn with_defaults(&self, host: &Self) -> Self {
                Self { $($field: self.$field.or(host.$field),)* }
            }
        }
    };
}
pub(crate) use overridable_numbers;
