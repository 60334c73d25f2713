"""What is published of a saved pipeline: its model card."""
