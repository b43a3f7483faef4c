"""The Redis or Valkey that replicas share: its address, and the connections to it."""
