"""Where questions and data come from: the command that makes more instances of databases."""
