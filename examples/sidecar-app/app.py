"""A web service that says whether a Zoho CRM user's organization can be read. The agent beside it has the tokens."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tokenkeep_zohocrm import AgentStore
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import EUDataCenter
from zohocrmsdk.src.com.zoho.crm.api.exception import SDKException
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature

STORE = AgentStore()


def organization():
    """Returns the answer of the API. An access token that it refuses before its end is replaced, once."""
    answer = OrgOperations().get_organization()
    if answer.get_status_code() == 401:
        STORE.rejected(Initializer.get_initializer().token)
        answer = OrgOperations().get_organization()
    return answer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status = organization().get_status_code()
        except SDKException as error:
            status = 503
            self.log_message("%s", error.error_message)  # it has no part of a token
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    Initializer.initialize(
        environment=EUDataCenter.PRODUCTION(),
        token=OAuthToken(user_signature=UserSignature(os.environ["TOKEN_USER"])),
        store=STORE,
        resource_path="/tmp",
    )
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
