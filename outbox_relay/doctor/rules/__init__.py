"""What follows from the facts. Pure: no clock, no connection, no file."""
