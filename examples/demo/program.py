"""A program that calls the CRM once. It knows its user and where the agent is, and keeps
no token: with the agent between, one of many such processes refreshes.

The order comes from standard input, and the answer goes to standard output, as JSON.
"""
import json
import sys
import urllib.request

print("ready", flush=True)
order = json.loads(sys.stdin.readline())

# No proxy stands between programs on one machine.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url, headers, body=None):
    with opener.open(urllib.request.Request(url, body, headers), timeout=50) as answer:
        return answer.status, json.load(answer)


_, token = ask(
    order["agent"] + "/v1/token",
    {"X-Tokenkeep-Token": order["token"], "Content-Type": "application/json"},
    json.dumps({"user_name": order["user"], "client_id": order["client"]}).encode(),
)
status, _ = ask(order["crm"], {"Authorization": "Zoho-oauthtoken " + token["access_token"]})
print(json.dumps({"user": token["user_name"], "status": status}))
