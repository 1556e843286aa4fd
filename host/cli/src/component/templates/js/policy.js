// {{name}}: what it decides, in a sentence.
import { {{helpers}} } from "weir-sdk";

/**
 * What a job remembers from call to call. It is made at the job's first call.
 */
class Policy {
{{fields}}

{{methods}}
}

export const { {{roles}} } = policy(Policy);
