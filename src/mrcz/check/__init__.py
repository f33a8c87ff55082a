"""What is in a file, is it whole, is it the same, what can be saved."""
