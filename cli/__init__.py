"""The command line: words become requests to the client, events become lines."""
