"""A Lambda function in Python that reads the organization of a Zoho CRM user. The extension has its tokens."""

import os

from tokenkeep_zohocrm import AgentStore
from zohocrmsdk.src.com.zoho.api.authenticator.oauth_token import OAuthToken
from zohocrmsdk.src.com.zoho.crm.api.dc import EUDataCenter
from zohocrmsdk.src.com.zoho.crm.api.initializer import Initializer
from zohocrmsdk.src.com.zoho.crm.api.org import OrgOperations
from zohocrmsdk.src.com.zoho.crm.api.user_signature import UserSignature


def initialize():
    """Tells the SDK whose tokens to use. It runs in the first invocation: the extension does not listen before."""
    if Initializer.get_initializer() is None:
        Initializer.initialize(
            environment=EUDataCenter.PRODUCTION(),
            token=OAuthToken(user_signature=UserSignature(os.environ["TOKEN_USER"])),
            store=AgentStore(),
            resource_path="/tmp",
        )


def handler(event, context):
    initialize()
    return {"status": OrgOperations().get_organization().get_status_code()}
