"""From a published network to the file that an engine loads."""
