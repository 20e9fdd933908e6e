"""The built-in skill `@perstack/base`: files, commands, todos and changes to the running team."""
