"""The platform from official images: what docker-compose.yml needs beside them."""
