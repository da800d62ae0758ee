"""Calls a gRPC service without end, and prints each answer as a line of JSON: {"answer": ...} or {"error": ...}.

The service's address is the argument, such as xds:///reviews; GRPC_XDS_BOOTSTRAP or GRPC_XDS_BOOTSTRAP_CONFIG in the
environment says where Convoy is. Messages are bytes, so that nothing needs to be generated. Ends with its input.
"""

import json
import sys
import threading

import grpc

PAUSE_SECONDS = 0.005
DEADLINE_SECONDS = 10


def call(method):
    try:
        return {"answer": method(b"", timeout=DEADLINE_SECONDS).decode()}
    except grpc.RpcError as error:
        return {"error": f"{error.code()}: {error.details()}"}


def main():
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    with grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)]) as channel:
        method = channel.unary_unary("/agent.Agent/Name")
        while not over.wait(PAUSE_SECONDS):
            print(json.dumps(call(method)), flush=True)


main()
