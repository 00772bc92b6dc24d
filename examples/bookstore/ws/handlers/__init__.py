"""One module for each kind of thing; all that is here is imported when the application starts."""
