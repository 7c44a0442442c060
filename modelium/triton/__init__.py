"""The only room that speaks to Triton: its repository API, inference and statistics, and the embedded server's process."""
