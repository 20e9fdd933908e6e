"""Expert definitions: reading `perstack.toml`, checking it, and turning it into what a run needs."""
