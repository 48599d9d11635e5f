"""Labels: reading and checking them, for every kind of annotation, and keeping the result for the next start."""
