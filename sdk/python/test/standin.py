"""What the tests use in the place of the SDK: the few types that its documentation shows.

The modules have the SDK's names, so that the store is imported as it stands.
"""

import json
import os
import sys
import time
import types
import urllib.error
import urllib.request

FIELDS = ("client_id", "client_secret", "grant_token", "refresh_token", "redirect_url", "id", "access_token",
          "user_signature", "api_domain", "expires_in")


class Token:
    pass


class OAuthToken(Token):
    def __init__(self, **fields):
        for name in FIELDS:
            setattr(self, name, fields.get(name))


for _name in FIELDS:
    setattr(OAuthToken, "get_" + _name, lambda self, name=_name: getattr(self, name))
    setattr(OAuthToken, "set_" + _name, lambda self, value, name=_name: setattr(self, name, value))


class TokenStore:
    pass


class UserSignature:
    def __init__(self, name):
        self.name = name

    def get_name(self):
        return self.name


class SDKException(Exception):
    def __init__(self, code=None, message=None, details=None, cause=None):
        super().__init__(code, message)
        self.code, self.details, self.cause = code, details, cause
        self.error_message = (message or "") + (str(details) if details else "") + (str(cause) if cause else "")


def get_token(token, store, calls):
    """Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent
    spares it that. It appends the methods of the store that it calls."""
    if token.get_id() is not None:
        calls.append("find_token_by_id")
        found = store.find_token_by_id(token.get_id())
        for name in FIELDS:  # what the token has stays, an old access token too
            if getattr(token, name) is None:
                setattr(token, name, getattr(found, name))
    else:
        calls.append("find_token")
        found = store.find_token(token) or token
    if not found.get_access_token():
        raise SDKException("TOKEN", "the SDK asks the token endpoint by itself")
    if found.get_expires_in() and int(found.get_expires_in()) - time.time() * 1000 < 5000:
        raise SDKException("TOKEN", "the SDK refreshes the token by itself")
    if found.get_expires_in() is None and found.get_id() is None:
        if found.get_user_signature() is None:
            found.set_user_signature(UserSignature(_user(found.get_access_token())))
        calls.append("save_token")
        store.save_token(found)
    return found.get_access_token()


def get(path, access_token):
    """Returns the status and the body of a call of the API."""
    request = urllib.request.Request(os.environ["API"] + path, headers={"Authorization": "Zoho-oauthtoken " + access_token})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, None


def _user(access_token):
    email = get("/crm/v8/users?type=CurrentUser", access_token)[1]["users"][0]["email"]
    return email + ":" + get("/crm/v8/org", access_token)[1]["org"][0]["zgid"]


class Initializer:
    _current = None

    def __init__(self, token, store):
        self.token, self.store = token, store

    @classmethod
    def initialize(cls, environment, token, store, resource_path):
        cls._current = cls(token, store)

    @classmethod
    def get_initializer(cls):
        return cls._current


class EUDataCenter:
    @staticmethod
    def PRODUCTION():
        return "https://www.zohoapis.eu"


class APIResponse:
    def __init__(self, status):
        self._status = status

    def get_status_code(self):
        return self._status


class OrgOperations:
    def get_organization(self):
        current = Initializer.get_initializer()
        return APIResponse(get("/crm/v8/org", get_token(current.token, current.store, []))[0])


def _module(name, **members):
    parts = name.split(".")
    for i in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:i]), types.ModuleType(".".join(parts[:i])))
    sys.modules[name].__dict__.update(members)


_root = "zohocrmsdk.src.com.zoho."
_module(_root + "api.authenticator.oauth_token", OAuthToken=OAuthToken)
_module(_root + "api.authenticator.store", TokenStore=TokenStore)
_module(_root + "crm.api.exception", SDKException=SDKException)
_module(_root + "crm.api.user_signature", UserSignature=UserSignature)
_module(_root + "crm.api.initializer", Initializer=Initializer)
_module(_root + "crm.api.dc", EUDataCenter=EUDataCenter)
_module(_root + "crm.api.org", OrgOperations=OrgOperations)
