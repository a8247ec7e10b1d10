package com.zoho.crm.api;

import com.zoho.crm.api.exception.SDKException;

/** A stand-in for the SDK's type of this name: what its documentation shows. */
public class UserSignature {
    private final String name;

    public UserSignature(String name) throws SDKException { this.name = name; }
    public String getName() { return name; }
}
