"""What the tests of the configuration have in common."""

PASS = "myproxy_pass http://%{origin};"

#: A line for each level of configuration at which a test puts something.
LEVELS = ["http", "server", "location"]


def check(stage, lines=(), **config):
    """nginx -t with a location that has these lines."""
    stage.origin()
    if lines:
        config["location"] = "\n".join(lines)
    return stage.config_test(**config)
