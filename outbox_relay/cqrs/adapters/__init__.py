"""What message brokers are made of."""
