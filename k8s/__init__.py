"""What runs the services on Kubernetes; of Python only what generates alerts and dashboards."""
