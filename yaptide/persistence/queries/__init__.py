"""Every query of the program, one module a subject. They run in the caller's transaction and know no rule but the guard."""
