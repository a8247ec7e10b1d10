"""The part of Lambda's Python runtime that a function needs: it asks for an invocation, calls the handler, and answers.

https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

import importlib
import json
import os
import sys
import urllib.request

BASE = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/"

# No proxy stands between programs on one machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def send(path, value):
    OPENER.open(urllib.request.Request(BASE + path, json.dumps(value).encode()))


def problem(error):
    return {"errorType": type(error).__name__, "errorMessage": str(error)}


def main():
    try:
        module, name = os.environ["_HANDLER"].rsplit(".", 1)
        handler = getattr(importlib.import_module(module), name)
    except Exception as error:  # an error of the function's module is the function's own
        send("init/error", problem(error))
        sys.exit(1)
    while True:
        with OPENER.open(BASE + "invocation/next") as request:
            id, event = request.headers["Lambda-Runtime-Aws-Request-Id"], json.load(request)
        try:
            answer = handler(event, None)
        except Exception as error:
            send("invocation/" + id + "/error", problem(error))
        else:
            send("invocation/" + id + "/response", answer)


main()
