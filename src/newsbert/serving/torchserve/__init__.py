"""TorchServe as a process: its configuration, ports, log and shutdown."""
