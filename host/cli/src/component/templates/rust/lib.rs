//! {{name}}: what it decides, in a sentence.

use weir_sdk::settings;
{{imports}}

/// What a job remembers from call to call. It is made at the job's first call.
struct Policy {
{{fields}}
}

impl Default for Policy {
    fn default() -> Self {
        Self {
{{made}}
        }
    }
}

{{methods}}

weir_sdk::export!(Policy: {{Roles}});
