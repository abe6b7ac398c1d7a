"""nginx as a plain streaming proxy: its configuration, when this machine has it."""

from __future__ import annotations

import shutil
from pathlib import Path

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream engines {{ least_conn; {servers} keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    keepalive_requests 10000000;
    location / {{
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }}
  }}
}}
"""


def command(folder: Path, port: int, engines: list[str]) -> list[str] | None:
    """Return how to start it with its files in ``folder``, None when it is not installed."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if program is None:
        return None
    servers = " ".join(f"server {engine};" for engine in engines)
    path = folder / "nginx.conf"
    path.write_text(CONFIGURATION.format(folder=folder, port=port, servers=servers))
    return [program, "-p", str(folder), "-c", str(path), "-e", str(folder / "error.log")]
