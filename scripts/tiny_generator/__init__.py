"""The stages of `scripts/train_tiny_generator.py`: what each trains, and what is made of it."""
