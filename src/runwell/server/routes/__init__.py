"""One module per family of URLs, each with a list named `operations`."""
