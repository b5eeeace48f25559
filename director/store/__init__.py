"""SQLModel tables and their queries; no function here commits."""
