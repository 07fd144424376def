"""How a node finds its first peers."""
