"""Named steps: the instants at which a kill must lose nothing. They do nothing; tests end the process there."""


def reached(step: str) -> None:
    """Mark that `step` was reached. Callers write `steps.reached(...)`, so that a test can put its own in place."""
