"""Everything that talks to Temporal from outside a worker: server, connection, storage, history."""
