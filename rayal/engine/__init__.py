"""Where the work runs: `local`, a for-loop and the specification; `ray`, the same at scale."""
