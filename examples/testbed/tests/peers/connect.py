"""Fetches a URL through an HTTP/2 proxy with libcurl and prints what came as a line of JSON.

Arguments: the proxy's URL, the folder with root.pem, libcurl.pem and libcurl.key, the URL.
"""

import io
import json
import sys

import pycurl

# CURLPROXY_HTTPS2; pycurl has no name for it.
HTTP2_PROXY = 3

proxy, folder, url = sys.argv[1:]
body = io.BytesIO()
curl = pycurl.Curl()
curl.setopt(pycurl.URL, url)
curl.setopt(pycurl.PROXY, proxy)
curl.setopt(pycurl.PROXYTYPE, HTTP2_PROXY)
curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
curl.setopt(pycurl.PROXY_CAINFO, f"{folder}/root.pem")
curl.setopt(pycurl.PROXY_SSLCERT, f"{folder}/libcurl.pem")
curl.setopt(pycurl.PROXY_SSLKEY, f"{folder}/libcurl.key")
# The certificate names an identity and no host; its chain is still verified.
curl.setopt(pycurl.PROXY_SSL_VERIFYHOST, 0)
curl.setopt(pycurl.PROXY_SSL_VERIFYPEER, 1)
curl.setopt(pycurl.TIMEOUT, 30)
curl.setopt(pycurl.VERBOSE, 1)
# For HTTP/2 libcurl tells the answer to CONNECT, and what TLS agreed on, only here.
told = []
curl.setopt(pycurl.DEBUGFUNCTION, lambda kind, text: told.append(text) if kind == 0 else None)
curl.setopt(pycurl.WRITEDATA, body)
error = None
try:
    curl.perform()
except pycurl.error as failure:
    error = str(failure)
print(
    json.dumps(
        {
            "told": b"".join(told).decode(errors="replace"),
            "status": curl.getinfo(pycurl.RESPONSE_CODE),
            "body": body.getvalue().decode(),
            "error": error,
        }
    ),
    flush=True,
)
