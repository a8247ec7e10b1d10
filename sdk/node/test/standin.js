// What the tests use in the place of the SDK: the few types that its documentation
// shows, under the SDK's name.
const FIELDS = ["Id", "ClientId", "ClientSecret", "RefreshToken", "AccessToken", "GrantToken", "ExpiresIn", "RedirectURL", "APIDomain", "UserSignature"];

export class OAuthToken {}
for (const name of FIELDS) {
  OAuthToken.prototype["get" + name] = function () { return this[name] ?? null; };
  OAuthToken.prototype["set" + name] = function (value) { this[name] = value; };
}

export class OAuthBuilder {
  #token = new OAuthToken();
  #set(name, value) { this.#token[name] = value; return this; }
  id(value) { return this.#set("Id", value); }
  clientId(value) { return this.#set("ClientId", value); }
  clientSecret(value) { return this.#set("ClientSecret", value); }
  redirectURL(value) { return this.#set("RedirectURL", value); }
  refreshToken(value) { return this.#set("RefreshToken", value); }
  grantToken(value) { return this.#set("GrantToken", value); }
  accessToken(value) { return this.#set("AccessToken", value); }
  userSignature(value) { return this.#set("UserSignature", value); }
  build() { return this.#token; }
}

export class TokenStore {}

export class UserSignature {
  constructor(name) { this.name = name; }
  getName() { return this.name; }
}

export class SDKException extends Error {
  constructor(code, message, details = null, cause = null) {
    super();
    Object.assign(this, { code, details, cause, message: message + (details ? JSON.stringify(details) : "") + (cause ?? "") });
  }
}

// Does what the SDK does before each call of the API, except that it asks no token
// endpoint: a store on an agent spares it that. It appends the methods of the store that
// it calls.
export async function getToken(token, store, calls) {
  let found;
  if (token.getId()) {
    calls.push("find_token_by_id");
    found = await store.findTokenById(token.getId());
    for (const name of FIELDS) token[name] ??= found[name]; // what the token has stays, an old access token too
  } else {
    calls.push("find_token");
    found = (await store.findToken(token)) ?? token;
  }
  if (!found.getAccessToken()) throw new SDKException("TOKEN", "the SDK asks the token endpoint by itself");
  if (found.getExpiresIn() && Number(found.getExpiresIn()) - Date.now() < 5000) {
    throw new SDKException("TOKEN", "the SDK refreshes the token by itself");
  }
  if (!found.getExpiresIn() && !found.getId()) {
    if (!found.getUserSignature()) found.setUserSignature(new UserSignature(await user(found.getAccessToken())));
    calls.push("save_token");
    await store.saveToken(found);
  }
  return found.getAccessToken();
}

// Resolves to the status and the body of a call of the API.
export async function get(path, accessToken) {
  const response = await fetch(process.env.API + path, { headers: { Authorization: "Zoho-oauthtoken " + accessToken } });
  return { status: response.status, body: await response.json() };
}

async function user(accessToken) {
  const { body: { users } } = await get("/crm/v8/users?type=CurrentUser", accessToken);
  const { body: { org } } = await get("/crm/v8/org", accessToken);
  return users[0].email + ":" + org[0].zgid;
}
