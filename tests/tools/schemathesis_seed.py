"""Starts runs that succeed, fail and wait, so that generated requests find runs in every state.

usage: schemathesis_seed.py BASE_URL
"""

import os
import sys

import requests

base_url = sys.argv[1]
headers = {"Authorization": f"Bearer {os.environ['WEIR_API_KEY']}"}


def call(method, path, body=None):
    try:
        response = requests.request(method, base_url + path, json=body, headers=headers, timeout=120)
    except requests.ConnectionError as error:
        sys.exit(f"nothing answers at {base_url}: {error}")
    if not response.ok:
        sys.exit(f"{method} {path}: {response.status_code} {response.text}")
    return response.json()


def workflow(name, **step):
    steps = [{"type": "http", "name": "call", **step}, {"type": "persist_snapshot"}]
    return call("POST", "/workflows", {"name": name, "definition": {"steps": steps}})["id"]


def start(workflow, number):
    return call("POST", f"/workflows/{workflow}/runs", {"input": {"number": number}})["run_id"]


# Waits up to a day for its second attempt: no name below `invalid` resolves (RFC 2606).
patience = {"initial_delay_seconds": 86400, "max_delay_seconds": 86400}
waits = workflow("waits", url="https://weir.invalid/", retry=patience)
# Fails for good: nothing may or can connect to this port.
fails = workflow("fails", url="http://127.0.0.1:1/", retry={"max_attempts": 1})
succeeds = workflow("succeeds", url=f"{base_url}/health", headers={"x-number": "{{ trigger.number }}"})

# In turns: a list of runs begins with the newest ones.
runs = [start(workflow, number) for number in range(5) for workflow in (waits, fails, succeeds)]
status = call("GET", f"/runs/{runs[-1]}?wait=1s")["status"]
if status != "SUCCEEDED":
    print(f"a run that should succeed is {status}: may the server call {base_url} (`egress_allow`)?", file=sys.stderr)
