"""Who offers what, found in Kademlia."""
