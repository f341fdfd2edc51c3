"""monero_rpc.py wait | mine COUNT | count: talks to the Monero node of programs.sh through its JSON-RPC interface."""
import json
import sys
import time
import urllib.request

URL = "http://127.0.0.1:28081/json_rpc"
START_SECONDS = 1200  # an interpreter takes minutes to get a node up
# Any valid address may have the reward; nobody needs to spend it.
ADDRESS = "42ey1afDFnn4886T7196doS9GPMzexD9gXpsZJDwVjeRVdFCSoHnv7KPbBeGpzJBzHRCAs9UxqeoyFQMYbqSWYTfJJQAWDm"


def call(method, **parameters):
    body = json.dumps({"jsonrpc": "2.0", "id": "0", "method": method, "params": parameters}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as reply:
        answer = json.load(reply)
    if "error" in answer:
        sys.exit(f"monero_rpc: {method}: {answer['error']}")
    return answer["result"]


def wait():
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            return call("get_block_count")
        except OSError:
            time.sleep(0.5)
    sys.exit("monero_rpc: the node does not answer")


def mine(count):
    answer = call("generateblocks", amount_of_blocks=count, wallet_address=ADDRESS)
    if len(answer["blocks"]) != count:
        sys.exit(f"monero_rpc: {len(answer['blocks'])} blocks instead of {count}")


if sys.argv[1] == "wait":
    wait()
elif sys.argv[1] == "mine":
    mine(int(sys.argv[2]))
else:
    print(f"{call('get_block_count')['count']}-blocks")
