"""The import path that Enflame's TopsIDEAS documents."""
