// {{name}}: describe in one sentence how this component decides.
import { {{helpers}} } from "weir-sdk";

/**
 * State of one job. It is created at the job's first call and kept until the job ends.
 */
class Policy {
{{fields}}

{{methods}}
}

export const { {{roles}} } = policy(Policy);
