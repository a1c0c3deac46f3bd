"""What a person sees of a run: figures, lines, samples, summary."""
