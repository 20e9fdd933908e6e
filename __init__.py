"""Perstack for Python on Temporal: teams of micro-agents as durable workflows."""
