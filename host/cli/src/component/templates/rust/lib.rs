//! {{name}}: describe in one sentence how this component decides.

use weir_sdk::settings;
{{imports}}

/// State of one job. It is created at the job's first call and kept until the job ends.
struct Policy {
{{fields}}
}

impl Default for Policy {
    fn default() -> Self {
        Self {
{{initializers}}
        }
    }
}

{{methods}}

weir_sdk::export!(Policy: {{Roles}});
