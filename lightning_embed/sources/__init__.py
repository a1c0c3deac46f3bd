"""Text people have, found and read as documents."""
