"""What the integration and fault tests are built from: real Kafka, the server, clients, load and tools."""
