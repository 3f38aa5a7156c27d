"""How the product is served: `gunicorn --config project/gunicorn_config.py project.wsgi`."""

worker_class = "gthread"
threads = 4
loglevel = "warning"
control_socket_disable = True  # it would be written into the home directory
