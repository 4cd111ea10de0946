"""The command line: thin commands over the library, each imported when it is used."""
