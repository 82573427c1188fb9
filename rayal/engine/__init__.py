"""Where the work runs: `local`, a for-loop and the specification, and `ray`, the same answer at scale."""
