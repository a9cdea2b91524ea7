"""All queries, one module per subject. They run in the caller's transaction and enforce no domain rules."""
