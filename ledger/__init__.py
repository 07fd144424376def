"""What happened and who is owed for it."""
