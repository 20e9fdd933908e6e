"""One module a command; `app.py` imports each only when it is called."""
