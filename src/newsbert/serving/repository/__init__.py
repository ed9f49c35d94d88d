"""Models for the servers of others, and the programs with which those serve them."""
