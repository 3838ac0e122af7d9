"""Numbers as proof: the reference that judges every framework, the comparison, and the naming of mistakes."""
