"""HTTP and WebSocket: validate, authorise, record, tell Temporal, answer."""
