"""`python -m perstack` and the `perstack` command."""

from .cli.app import main

if __name__ == "__main__":
    main()
