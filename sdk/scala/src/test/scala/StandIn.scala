// Stand-ins for the types of the SDK that the store uses: what its documentation shows, and what the tests need.

package com.zoho.crm.api.exception {
  import org.json.JSONObject

  class SDKException(code: String, message: String, details: JSONObject, cause: Exception) extends Exception(message, cause) {
    def this(code: String, message: String) = this(code, message, null, null)
    def this(code: String, message: String, details: JSONObject) = this(code, message, details, null)
    def this(code: String, message: String, cause: Exception) = this(code, message, null, cause)
    def getCode: String = code
    def getDetails: JSONObject = details
  }
}

package com.zoho.crm.api {
  class UserSignature(name: String) {
    def getName: String = name
  }
}

package com.zoho.api.authenticator {
  import com.zoho.crm.api.UserSignature

  trait Token {
    def getId: String
  }

  class OAuthToken extends Token {
    private var id, clientId, clientSecret, redirectURL, grantToken, refreshToken, accessToken, expiresIn, apiDomain: String = null
    private var userSignature: UserSignature = null

    def getId: String = id
    def setId(s: String): Unit = id = s
    def getClientId: String = clientId
    def setClientId(s: String): Unit = clientId = s
    def getClientSecret: String = clientSecret
    def setClientSecret(s: String): Unit = clientSecret = s
    def getRedirectURL: String = redirectURL
    def setRedirectURL(s: String): Unit = redirectURL = s
    def getGrantToken: String = grantToken
    def setGrantToken(s: String): Unit = grantToken = s
    def getRefreshToken: String = refreshToken
    def setRefreshToken(s: String): Unit = refreshToken = s
    def getAccessToken: String = accessToken
    def setAccessToken(s: String): Unit = accessToken = s
    def getExpiresIn: String = expiresIn
    def setExpiresIn(s: String): Unit = expiresIn = s
    def getAPIDomain: String = apiDomain
    def setAPIDomain(s: String): Unit = apiDomain = s
    def getUserSignature: UserSignature = userSignature
    def setUserSignature(u: UserSignature): Unit = userSignature = u
  }
}

package com.zoho.api.authenticator.store {
  import com.zoho.api.authenticator.Token
  import scala.collection.mutable.ArrayBuffer

  trait TokenStore {
    def findToken(token: Token): Token
    def findTokenById(id: String): Token
    def saveToken(token: Token): Unit
    def deleteToken(id: String): Unit
    def getTokens: ArrayBuffer[Token]
    def deleteTokens(): Unit
  }
}
