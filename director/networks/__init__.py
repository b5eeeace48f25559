"""Networks of sandboxes on this host: their bridges, and what the kernel's packet filter allows."""
