"""Where large payloads lie: named by their hash, so writing one twice costs nothing."""
