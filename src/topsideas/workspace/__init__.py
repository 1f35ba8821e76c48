"""What is kept between runs: fingerprint, journal, cached results."""
