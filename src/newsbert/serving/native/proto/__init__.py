"""The Open Inference Protocol over gRPC: its public description, and what protoc makes of it."""
