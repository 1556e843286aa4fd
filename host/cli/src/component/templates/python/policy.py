"""{{name}}: what it decides, in a sentence."""

from weir_sdk import {{helpers}}
{{imports}}


class Policy:
    """What a job remembers from call to call. It is made at the job's first call."""

    def __init__(self) -> None:
{{made}}

{{methods}}


roles = policy(Policy)
{{bound}}
