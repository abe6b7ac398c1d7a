"""The request and answer shapes of the OpenAI API, one file per path."""
