"""Stage 2, feature mapping: parts that several methods share."""
