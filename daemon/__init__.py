"""One node: its decisions, and the doors it opens."""
