"""Skills: where an expert's tools come from."""
