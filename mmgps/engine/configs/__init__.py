"""Changes to a config by a command line, and the inputs, work dir and runner of a config."""
