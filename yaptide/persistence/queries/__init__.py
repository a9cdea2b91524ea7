"""Every query of the program, one module a subject. They run in the caller's transaction and know no rules."""
