"""The words both sides share. Imports nothing of ours; standard library and pydantic only."""
