"""What a person or a program sees of a running migration."""
