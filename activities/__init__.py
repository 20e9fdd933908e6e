"""What touches the world: model calls, tools and sessions, run as Temporal activities."""
