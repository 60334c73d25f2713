"""The zoo: one folder a method."""
