package com.zoho.api.authenticator;

import com.zoho.crm.api.UserSignature;

/** A stand-in for the SDK's type of this name: what its documentation shows. */
public class OAuthToken implements Token {
    private String id, clientId, clientSecret, redirectURL, grantToken, refreshToken, accessToken, expiresIn, apiDomain;
    private UserSignature userSignature;

    public String getId() { return id; }
    public void setId(String s) { id = s; }
    public String getClientId() { return clientId; }
    public void setClientId(String s) { clientId = s; }
    public String getClientSecret() { return clientSecret; }
    public void setClientSecret(String s) { clientSecret = s; }
    public String getRedirectURL() { return redirectURL; }
    public void setRedirectURL(String s) { redirectURL = s; }
    public String getGrantToken() { return grantToken; }
    public void setGrantToken(String s) { grantToken = s; }
    public String getRefreshToken() { return refreshToken; }
    public void setRefreshToken(String s) { refreshToken = s; }
    public String getAccessToken() { return accessToken; }
    public void setAccessToken(String s) { accessToken = s; }
    public String getExpiresIn() { return expiresIn; }
    public void setExpiresIn(String s) { expiresIn = s; }
    public String getAPIDomain() { return apiDomain; }
    public void setAPIDomain(String s) { apiDomain = s; }
    public UserSignature getUserSignature() { return userSignature; }
    public void setUserSignature(UserSignature u) { userSignature = u; }
}
