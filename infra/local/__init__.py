"""The embedded platform: real services as plain processes on 127.0.0.1, without root and without Docker."""
