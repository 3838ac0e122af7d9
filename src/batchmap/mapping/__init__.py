"""How a canonical spec and native arguments are paired: rows, calls, packs."""
