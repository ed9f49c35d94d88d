"""The public Python interface: train, load, register and evaluate models, write a configuration, examine a machine."""
