"""The terminal's screens. They know the core and what `backend` promises; Temporal and providers are behind it."""
