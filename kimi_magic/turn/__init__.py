"""One turn, from a request to the reply: what is sent, the loop, and who runs it."""
