"""Programs that run inside images, mostly while these are built."""
