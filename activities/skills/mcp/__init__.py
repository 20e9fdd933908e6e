"""Skills that are MCP servers of others, as processes or on the network; none of them is trusted."""
