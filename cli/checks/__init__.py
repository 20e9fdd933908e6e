"""What `perstack doctor` looks at; nothing here starts a job or a server."""
