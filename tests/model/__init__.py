"""A reference model of a POP3 session, and real servers that have to agree with it."""
