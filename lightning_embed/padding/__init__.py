"""The embedding whose padding vector is zero, and the guard that proves it stays so."""
