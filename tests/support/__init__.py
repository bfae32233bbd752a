"""What tests share: real servers, a POP3 client on raw sockets, maildirs, a small inetd."""
