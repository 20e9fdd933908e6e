"""Temporal workflows: they interpret what `core` decides and never touch the world."""
