"""What a node decides, as pure functions of what it knows."""
