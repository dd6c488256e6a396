"""What became of the tables, release by release: one Alembic revision a file, never edited."""
