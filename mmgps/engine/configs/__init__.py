"""Changes to a config, and what a command line makes of one: a method, inputs, a work dir, a runner."""
