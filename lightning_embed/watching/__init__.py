"""What a person sees of a run: figures, lines, pages, summary."""
