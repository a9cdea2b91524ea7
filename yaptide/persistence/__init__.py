"""The store: tables, the payload codec, every query, and the migrations that make the tables."""
