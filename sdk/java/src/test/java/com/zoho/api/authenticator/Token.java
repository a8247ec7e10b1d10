package com.zoho.api.authenticator;

/** A stand-in for the SDK's type of this name: what the tests need of it. */
public interface Token {
    String getId();
}
