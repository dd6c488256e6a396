"""One volume's way: what is asked, planned, done, undone and told."""
