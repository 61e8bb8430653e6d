"""How gunicorn serves `django_app`: workers forked from a process that has used the store, threads in each.

A file and no arguments, since gunicorn passes over the settings here that its version does not know.
"""

preload_app = True
workers = 3
worker_class = "gthread"
threads = 4
timeout = 90
graceful_timeout = 30
"""After so many seconds gunicorn kills workers that do not end when they are told to, and says so."""

control_socket_disable = True
"""It would be one for all servers of a user."""
