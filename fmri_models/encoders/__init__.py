"""Stage 1, signal encoding: modules that several methods share."""
