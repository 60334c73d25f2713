"""Stage 1, signal encoding: parts that several methods share."""
