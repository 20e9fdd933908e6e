"""Perstack for Python on Temporal: teams of micro-agents as durable workflows."""

__version__ = "0.1.0"
