"""What a worker serves to the API alone: streams that would be too much for Temporal."""
