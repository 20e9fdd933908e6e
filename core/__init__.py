"""The pure centre: data, the nine-state machine and the fold. No clock, no randomness, no I/O."""
