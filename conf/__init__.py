"""What did the user ask for? Hydra groups as YAML, their validation in conf.schema, composition in conf.load."""
