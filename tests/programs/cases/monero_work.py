"""monero_work.py mine COUNT FILE | jit FILE | interpreter FILE: with the Monero node of cases.sh. `mine` makes a chain and writes its
blocks, and what RandomX gives for some inputs, to FILE; the others have the node check the blocks and print what RandomX gives here."""
import hashlib
import json
import sys
import time
import urllib.request

URL = "http://127.0.0.1:28081/json_rpc"
START_SECONDS = 600
# Any valid address may have the reward; nobody needs to spend it.
ADDRESS = "42ey1afDFnn4886T7196doS9GPMzexD9gXpsZJDwVjeRVdFCSoHnv7KPbBeGpzJBzHRCAs9UxqeoyFQMYbqSWYTfJJQAWDm"


def call(method, parameters):
    body = json.dumps({"jsonrpc": "2.0", "id": "0", "method": method, "params": parameters}).encode()
    request = urllib.request.Request(URL, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=900) as reply:
        answer = json.load(reply)
    if "error" in answer:
        sys.exit(f"{method}: {answer['error']}")
    return answer["result"]


def wait():
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            return call("get_block_count", {})
        except OSError:
            time.sleep(0.5)
    sys.exit("the node does not answer")


def hashes(blobs):
    """Proof-of-work hashes of blocks, for seeds of the test's own: each makes RandomX fill its cache anew."""
    found = []
    for seed in range(2):
        for blob in blobs:
            found.append(call("calc_pow", {"major_version": 16, "height": 3000000, "block_blob": blob,
                                           "seed_hash": hashlib.sha256(b"seed %d" % seed).hexdigest()}))
    return found


def blocks(count):
    return [call("get_block", {"height": height})["blob"] for height in range(1, count + 1)]


def mine(count, path):
    call("generateblocks", {"amount_of_blocks": count, "wallet_address": ADDRESS})
    blobs = blocks(count)
    with open(path, "w") as f:
        json.dump({"blocks": blobs, "hashes": hashes(blobs)}, f)


def check(path, some):
    with open(path) as f:
        chain = json.load(f)
    for blob in chain["blocks"]:
        call("submit_block", [blob])
    print(f"{call('get_block_count', {})['count']} blocks")
    print("chain", blocks(len(chain["blocks"])) == chain["blocks"])
    found = hashes(chain["blocks"][:some])
    expected = [hash for n, hash in enumerate(chain["hashes"]) if n % len(chain["blocks"]) < some]
    print("hashes", len(found), found == expected)


wait()
if sys.argv[1] == "mine":
    mine(int(sys.argv[2]), sys.argv[3])
else:
    check(sys.argv[2], 10 if sys.argv[1] == "jit" else 2)
