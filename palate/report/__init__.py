"""Reports as one HTML file, with plots inside."""
