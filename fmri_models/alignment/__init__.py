"""Stage 2, feature mapping: losses and parts that carry brain features into a generator's space."""
