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
# The example of calc_pow in the documentation of the node's interface, a block template of mainnet.
PUBLISHED_BLOCK = (
    "0e0ed286da8006ecdc1aab3033cf1716c52f13f9d8ae0051615a2453643de94643b550d543becd0000000002abc78b0101ffefc68b0101fcfcf0"
    "d4b422025014bb4a1eade6622fd781cb1063381cad396efa69719b41aa28b4fce8c7ad4b5f019ce1dc670456b24a5e03c2d9058a2df10fec779e"
    "2579753b1847b74ee644f16b023c0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000051399a1bc46a846474f5b33db24eae173a26393b976054ee14f9feefe99925233802867097564c9db"
    "7a36af5bb5ed33ab46e63092bd8d32cef121608c3258edd55562812e21cc7e3ac73045745a72f7d74581d9a0849d6f30e8b2923171253e864f4e"
    "9ddea3acb5bc755f1c4a878130a70c26297540bc0b7a57affb6b35c1f03d8dbd54ece8457531f8cba15bb74516779c01193e212050423020e45a"
    "a2c15dcb")
PUBLISHED_SEED = "d432f499205150873b2572b5f033c9c6e4b7c6f3394bd2dd93822cd7085e7307"
PUBLISHED_HASH = "d0402d6834e26fb94a9ce38c6424d27d2069896a9b8b1ce685d79936bca6e0a8"


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


def published():
    found = call("calc_pow", {"major_version": 14, "height": 2286447, "block_blob": PUBLISHED_BLOCK, "seed_hash": PUBLISHED_SEED})
    return "as published" if found == PUBLISHED_HASH else "WRONG"


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
    print("hash of the documentation's block", published())


wait()
if sys.argv[1] == "mine":
    mine(int(sys.argv[2]), sys.argv[3])
else:
    check(sys.argv[2], 10 if sys.argv[1] == "jit" else 2)
