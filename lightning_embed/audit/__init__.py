"""Reading other people's models without running their code."""
