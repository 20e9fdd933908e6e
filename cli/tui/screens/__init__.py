"""Whole screens: what a person does, one each."""
