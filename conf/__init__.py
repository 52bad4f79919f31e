"""The commented sample, the JSON schema and the golden files, as package data."""
