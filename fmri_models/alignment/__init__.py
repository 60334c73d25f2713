"""Stage 2, feature mapping: losses and modules that carry brain features into a generator's space."""
