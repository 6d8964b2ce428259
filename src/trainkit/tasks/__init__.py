"""What targets mean."""
