"""How the product is served: `gunicorn --config project/gunicorn_config.py project.wsgi`."""

worker_class = "gthread"
threads = 4
loglevel = "warning"
control_socket_disable = True  # it would be written into the home directory
# Without the query, which may hold what nobody should read in a log.
access_log_format = '%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s'
