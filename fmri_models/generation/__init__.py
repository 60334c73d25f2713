"""Stage 3, image reconstruction: one image generator a file."""
