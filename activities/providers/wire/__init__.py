"""How conversations and answers look on the wire: a body and an answer for each API, whoever serves it."""
