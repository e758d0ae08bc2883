"""The commands: they parse, call and print. `main` is the doorway."""
