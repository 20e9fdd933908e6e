"""Adapters to model providers: one wire mapping per API family, one table of failures for all."""
