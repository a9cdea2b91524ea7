"""The store: tables, payload codec, queries, and the migrations that create the tables."""
