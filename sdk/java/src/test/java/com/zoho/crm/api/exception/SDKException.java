package com.zoho.crm.api.exception;

import org.json.JSONObject;

/** A stand-in for the SDK's type of this name: what the tests need of it. */
public class SDKException extends Exception {
    private final String code;
    private final JSONObject details;

    public SDKException(String code, String message) { this(code, message, null, null); }
    public SDKException(String code, String message, Exception cause) { this(code, message, null, cause); }
    public SDKException(String code, String message, JSONObject details, Exception cause) {
        super(message + (details == null ? "" : details) + (cause == null ? "" : cause), cause);
        this.code = code;
        this.details = details;
    }
    public String getCode() { return code; }
    public JSONObject getDetails() { return details; }
}
