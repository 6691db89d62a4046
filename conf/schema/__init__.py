"""What a user can ask for: frozen pydantic models of every configuration section."""
