"""{{name}}: describe in one sentence how this component decides."""

from weir_sdk import {{helpers}}
{{imports}}


class Policy:
    """State of one job. It is created at the job's first call and kept until the job ends."""

    def __init__(self) -> None:
{{initializers}}

{{methods}}


roles = policy(Policy)
{{role_bindings}}
