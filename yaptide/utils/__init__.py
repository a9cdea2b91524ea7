"""Names that scripts written for the older backend import."""
