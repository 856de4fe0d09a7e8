"""Speaks delta ADS over gRPC. Prints a line of JSON for each response and answers it.

Arguments: the server's address, a type to subscribe to by `*`, a type to subscribe to without any
name. Lines on stdin: `open` opens a stream, which tells what is known from earlier ones; `close`
ends it. A response with a resource whose name begins with `refuse` is refused.
"""

import json
import queue
import sys
import threading

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.rpc import status_pb2

Request = discovery_pb2.DeltaDiscoveryRequest
address, by_star, by_nothing = sys.argv[1:]
stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(grpc.insecure_channel(address))
known = {by_star: {}, by_nothing: {}}


def say(line):
    print(line, flush=True)


def answer(response):
    """Tells the response and returns its ACK or NACK."""
    held = known[response.type_url]
    request = Request(type_url=response.type_url, response_nonce=response.nonce)
    refused = [r.name for r in response.resources if r.name.startswith("refuse")]
    if refused:
        request.error_detail.CopyFrom(
            status_pb2.Status(code=3, message="told to " + refused[0])
        )
    else:
        held.update({r.name: r.version for r in response.resources})
        for name in response.removed_resources:
            held.pop(name, None)
    resources = {
        r.name: {
            "type": r.resource.type_url,
            "version": r.version,
            "aliases": list(r.aliases),
            "body": r.resource.value.decode(),
        }
        for r in response.resources
    }
    told = {
        "type": response.type_url,
        "resources": resources,
        "removed": list(response.removed_resources),
    }
    say(json.dumps(told))
    return request


class Stream:
    """A stream, and the thread that reads it."""

    def __init__(self):
        self.requests = queue.Queue()
        node = base_pb2.Node(id="python")
        for type_url, names in ((by_star, ["*"]), (by_nothing, [])):
            self.requests.put(
                Request(
                    node=node,
                    type_url=type_url,
                    resource_names_subscribe=names,
                    initial_resource_versions=known[type_url],
                )
            )
        self.call = stub.DeltaAggregatedResources(iter(self.requests.get, None))
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        try:
            for response in self.call:
                self.requests.put(answer(response))
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                say(json.dumps(str(error)))

    def close(self):
        self.call.cancel()
        self.requests.put(None)
        self.reader.join()


stream = None
for line in sys.stdin:
    if line.strip() == "open":
        stream = Stream()
    else:
        stream.close()
        stream = None
        say("closed")
if stream:
    stream.close()
