"""What tests share: a database of one's own, waiting for outside events, real servers."""
