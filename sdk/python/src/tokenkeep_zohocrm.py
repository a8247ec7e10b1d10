"""The TokenStore of the Zoho CRM Python SDK on a tokenkeep agent.

    store = AgentStore()
    Initializer.initialize(environment=environment, token=token, store=store)

The agent keeps the tokens in a secret manager and refreshes them, once for all
processes, before the SDK would.
"""

import http.client
import json
import os
import socket
import threading
import time
from urllib.parse import urlsplit

from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.api.authenticator.store import TokenStore
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

# The members of the agent's JSON, and what the SDK calls them.
_MEMBERS = {
    "id": "id", "client_id": "client_id", "client_secret": "client_secret", "refresh_token": "refresh_token",
    "access_token": "access_token", "grant_token": "grant_token", "expiry_time": "expires_in",
    "redirect_url": "redirect_url", "api_domain": "api_domain",
}
_CALLERS_OWN = ("client_id", "client_secret", "grant_token", "redirect_url")

# In seconds, after a request without an answer: the agent may be starting, and every operation can be repeated.
_PAUSES = (0.1, 0.5, 2.5, None)


class _UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class AgentStore(TokenStore):
    """A TokenStore whose methods ask an agent. It is safe for use by threads.

    Parameters:
        address (str) : "http://127.0.0.1:2780" or "unix:PATH"; default $TOKENKEEP_AGENT, else the former.
        token (str) : of the agent's header; default $TOKENKEEP_AGENT_TOKEN, else what is in the file that
            $TOKENKEEP_AGENT_TOKEN_FILE names.
        timeout (float) : of one request, in seconds; an agent that refreshes a token takes its time.
    """

    def __init__(self, address=None, token=None, timeout=35):
        self._address = address or os.environ.get("TOKENKEEP_AGENT") or "http://127.0.0.1:2780"
        self._token, self._timeout = token, timeout
        self._given = threading.local()

    def find_token(self, token):
        """Returns the token, completed by its record and with a fresh access token; None if there is no record."""
        if not isinstance(token, OAuthToken):
            return token
        answer = self._ask("find", _members(token), none_if="not_found")
        return answer and self._give(token, answer)

    def find_token_by_id(self, id):
        """Returns the token of the record with the ID, with a fresh access token."""
        return self._give(OAuthToken(id=id), self._ask("find_by_id", {"id": id}))

    def save_token(self, token):
        """Stores the token. One without an ID gets that of its record."""
        if isinstance(token, OAuthToken):
            record = self._ask("save", _members(token))["token"]
            if token.get_id() is None:
                token.set_id(record["id"])

    def delete_token(self, id):
        """Removes the record with the ID, if there is one."""
        self._ask("delete", {"id": id})

    def get_tokens(self):
        """Returns the tokens of all records that can be read."""
        return [_fill(OAuthToken(id=record["id"]), record) for record in self._ask("list", {})["tokens"]]

    def delete_tokens(self):
        """Removes all records."""
        self._ask("delete_all", {})

    def rejected(self, token):
        """Gets another access token for one that the API has refused before its end (INVALID_TOKEN).

        The one that is replaced is what this thread was given last for the ID of the token: the SDK leaves its own
        token with the access token of the first call.
        """
        request = _members(token)
        if request.get("id") and getattr(self._given, "id", None) == request["id"]:
            request["access_token"] = self._given.access_token
        return self._give(token, self._ask("rejected", request))

    def _give(self, token, answer):
        record = answer["token"]
        self._given.id, self._given.access_token = record["id"], record.get("access_token", "")
        return _fill(token, record)

    def _ask(self, operation, request, none_if=None):
        for pause in _PAUSES:
            try:
                status, answer = self._post(operation, request)
                break
            except (OSError, http.client.HTTPException) as cause:
                if pause is None:
                    raise SDKException("TOKEN_STORE", "the tokenkeep agent does not answer: ", cause=cause)
            except ValueError:  # it quotes the token
                raise SDKException("TOKEN_STORE", "the token of the tokenkeep agent is not valid") from None
            time.sleep(pause)
        try:
            answer = json.loads(answer)
        except ValueError:
            raise SDKException("TOKEN_STORE", "what answers is no tokenkeep agent")
        if status == 200:
            return answer
        if none_if and answer.get("class") == none_if:
            return None
        details = {name: answer[name] for name in ("class", "code", "retry_after") if name in answer}
        raise SDKException("TOKEN_STORE", "tokenkeep agent: " + str(answer.get("error")), details=details)

    def _post(self, operation, request):
        if self._address.startswith("unix:"):
            connection = _UnixConnection("localhost", timeout=self._timeout)
            connection.path = self._address[len("unix:"):]
        else:
            connection = http.client.HTTPConnection(urlsplit(self._address).netloc, timeout=self._timeout)
        try:
            headers = {"Content-Type": "application/json", "X-Tokenkeep-Token": self._header()}
            connection.request("POST", "/v1/" + operation, json.dumps(request), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _header(self):
        token = self._token or os.environ.get("TOKENKEEP_AGENT_TOKEN")
        if not token and os.environ.get("TOKENKEEP_AGENT_TOKEN_FILE"):
            with open(os.environ["TOKENKEEP_AGENT_TOKEN_FILE"]) as file:
                token = file.read().strip()
        return token or ""


def _members(token):
    """Returns the agent's JSON for a token."""
    request = {member: getattr(token, "get_" + name)() for member, name in _MEMBERS.items()}
    if token.get_user_signature() is not None:
        request["user_name"] = token.get_user_signature().get_name()
    return {member: str(value) for member, value in request.items() if value not in (None, "")}


def _fill(token, record):
    """Sets what a record has in a token. What the caller has chosen itself stays."""
    for member, name in _MEMBERS.items():
        if name not in _CALLERS_OWN or getattr(token, "get_" + name)() is None:
            getattr(token, "set_" + name)(record.get(member))
    if "user_name" in record:
        token.set_user_signature(UserSignature(record["user_name"]))
    return token
