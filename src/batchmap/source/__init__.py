"""Source text: read into calls, written from calls, and cells printed in a framework's own words."""
