"""What continuous batching makes of generation: places that are filled again, against batches that end as a whole."""
