"""What works here and what does not: checks that change nothing in any cloud."""
