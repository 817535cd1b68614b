"""Starts runs that succeed, fail and wait, so that generated requests find runs in every state.

usage: schemathesis_seed.py BASE_URL
"""

import sys

import requests

base_url = sys.argv[1]


def post(path, body=None):
    response = requests.post(base_url + path, json=body, timeout=60)
    if not response.ok:
        sys.exit(f"POST {path}: {response.status_code} {response.text}")
    return response.json()


def start(name, runs, **step):
    steps = [{"type": "http", "name": "call", **step}, {"type": "persist_snapshot"}]
    workflow = post("/workflows", {"name": name, "definition": {"steps": steps}})["id"]
    return [post(f"/workflows/{workflow}/runs", {"input": {"number": i}})["run_id"] for i in range(runs)]


def end(run):
    status = requests.get(f"{base_url}/runs/{run}?wait=1s", timeout=60).json()["status"]
    print(f"{run} {status}", file=sys.stderr); print(requests.get(f'{base_url}/runs/{run}').text)


# Waits nearly a day for its second attempt: no name below `invalid` resolves (RFC 2606).
start("waits", 10, url="https://weir.invalid/", retry={"initial_delay_seconds": 86400, "max_delay_seconds": 86400})
failed = start("fails", 5, url="http://127.0.0.1:1/", retry={"max_attempts": 1})
succeeded = start("succeeds", 1, url=f"{base_url}/health", headers={"x-number": "{{ trigger.number }}"})
for run in failed + succeeded:
    end(run)
