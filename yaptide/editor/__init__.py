"""Projects of the web editor."""
