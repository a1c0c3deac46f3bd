"""What a run will see of its text, before it."""
