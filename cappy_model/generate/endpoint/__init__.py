"""The engine for OpenAI-compatible endpoints: requests, connection, budget and circuit breaker."""
