"""Readers of byte formats: bytes of a file enter, bounded; sizes, names and proof that the file is whole leave."""
