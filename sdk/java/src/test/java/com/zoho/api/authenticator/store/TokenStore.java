package com.zoho.api.authenticator.store;

import com.zoho.api.authenticator.Token;
import com.zoho.crm.api.exception.SDKException;
import java.util.List;

/** A stand-in for the SDK's type of this name: what its documentation shows. */
public interface TokenStore {
    Token findToken(Token token) throws SDKException;
    Token findTokenById(String id) throws SDKException;
    void saveToken(Token token) throws SDKException;
    void deleteToken(String id) throws SDKException;
    List<Token> getTokens() throws SDKException;
    void deleteTokens() throws SDKException;
}
