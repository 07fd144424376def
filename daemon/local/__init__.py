"""What a person on this machine may ask the daemon: documents, and the HTTP that carries them."""
