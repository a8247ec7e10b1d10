"""A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
line says and prints one line for it; or it waits for one line, and each of its threads does what an SDK does before a
call of the API, and prints a line for each call.
"""

import json
import sys
import threading
import time

import standin
from tokenkeep_zohocrm import AgentStore
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature


def say(**answer):
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def make(like):
    like = dict(like)
    if "user_name" in like:
        like["user_signature"] = UserSignature(like.pop("user_name"))
    return OAuthToken(**like)


def members(token):
    if not isinstance(token, OAuthToken):
        return {}
    all = {name: getattr(token, "get_" + name)() for name in standin.FIELDS}
    user = all.pop("user_signature")
    all["user_name"] = user and user.get_name()
    return {name: value for name, value in all.items() if value is not None}


def caller(order):
    token, store = make(order["token"]), AgentStore()
    for _ in range(order["calls"]):
        try:
            say(access_token=standin.get_token(token, store, []))
        except SDKException as error:
            say(error=str(error.error_message))
        time.sleep(order["pause"])


def call(token, store):
    """Calls the API as the README shows it: a token that is refused is replaced once."""
    statuses = [standin.get("/crm/v8/org", standin.get_token(token, store, []))[0]]
    if statuses[0] == 401:
        store.rejected(token)
        statuses.append(standin.get("/crm/v8/org", standin.get_token(token, store, []))[0])
    return statuses


def perform(step, store, token):
    do, result = step["do"], {"calls": []}
    try:
        if do == "get_token":
            result["access_token"] = standin.get_token(token, store, result["calls"])
        elif do == "call":
            result["statuses"] = call(token, store)
        elif do == "get_tokens":
            result["list"] = [each.get_id() for each in store.get_tokens()]
        elif do == "delete_tokens":
            store.delete_tokens()
        elif do in ("find_token_by_id", "delete_token"):
            found = getattr(store, do)(step["id"])
            result.update(none=found is None, found=members(found))
        else:
            found = getattr(store, do)(token)
            result.update(none=found is None, same=found is token, found=members(found))
    except SDKException as error:
        result.update(code=error.code, error=error.error_message, **{"class": (error.details or {}).get("class", "")})
    say(token=members(token), **result)


order = json.loads(sys.stdin.readline())
say(ready=True)
if order["steps"]:
    store, tokens = AgentStore(), {}
    for line in sys.stdin:
        step = json.loads(line)
        if "with" in step or "other" in step:
            tokens[step["on"]] = make(step["with"]) if "with" in step else object()
        other = "address" in step or "token" in step
        perform(step, AgentStore(step.get("address"), step.get("token")) if other else store, tokens.get(step["on"]))
else:
    sys.stdin.readline()
    threads = [threading.Thread(target=caller, args=(order,)) for _ in range(order["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
