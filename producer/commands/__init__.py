"""The command line. Exit codes: 0 all good, 1 some items failed, 2 usage or set-up error."""
