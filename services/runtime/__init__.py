"""What any of our gRPC processes needs; knows no model."""
