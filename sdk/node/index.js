/**
 * The TokenStore of the Zoho CRM Node.js SDK on a tokenkeep agent:
 *
 *     (await new ZOHOCRMSDK.InitializeBuilder()).environment(environment).token(token).store(new AgentStore()).initialize()
 *
 * The agent keeps the tokens in a secret manager and refreshes them, once for all
 * processes, before the SDK would.
 */
import { readFileSync } from "node:fs";
import http from "node:http";
import * as ZOHOCRMSDK from "@zohocrm/nodejs-sdk-8.0";

const { OAuthBuilder, OAuthToken, SDKException, TokenStore, UserSignature } = ZOHOCRMSDK;

/** The members of the agent's JSON, and what the SDK's accessors call them. */
const MEMBERS = {
  id: "Id", client_id: "ClientId", client_secret: "ClientSecret", refresh_token: "RefreshToken", access_token: "AccessToken",
  grant_token: "GrantToken", expiry_time: "ExpiresIn", redirect_url: "RedirectURL", api_domain: "APIDomain",
};
const CALLERS_OWN = ["client_id", "client_secret", "grant_token", "redirect_url"];

/** In milliseconds, after a request without an answer: the agent may be starting, and every operation can be repeated. */
const PAUSES = [100, 500, 2500, null];

/** For so long, in milliseconds, the agent does not replace a token that has just replaced one. */
const REPLACED = 60000;

/** How many records a store remembers the access tokens of. */
const REMEMBERED = 1000;

/** A TokenStore whose methods ask an agent. */
export class AgentStore extends TokenStore {
  #given = new Map(); // by ID, the access token that callers have, and until when they may have an older one
  /**
   * @param {object} [options]
   * @param {string} [options.address] "http://127.0.0.1:2780" or "unix:PATH"; default $TOKENKEEP_AGENT, else the former.
   * @param {string} [options.token] of the agent's header; default $TOKENKEEP_AGENT_TOKEN, else what is in the file
   *   that $TOKENKEEP_AGENT_TOKEN_FILE names.
   * @param {number} [options.timeout] of one request, in milliseconds; an agent that refreshes a token takes its time.
   */
  constructor({ address, token, timeout = 35000 } = {}) {
    super();
    this.address = address || process.env.TOKENKEEP_AGENT || "http://127.0.0.1:2780";
    this.timeout = timeout;
    Object.defineProperty(this, "token", { value: token, enumerable: false }); // it is not printed
  }

  /** Resolves to the token, completed by its record and with a fresh access token; null if there is no record. */
  async findToken(token) {
    if (!(token instanceof OAuthToken)) return token;
    const answer = await this.#ask("find", members(token), "not_found");
    return answer && this.#give(token, answer);
  }

  /** Resolves to the token of the record with the ID, with a fresh access token. */
  async findTokenById(id) {
    const answer = await this.#ask("find_by_id", { id });
    return this.#give(new OAuthBuilder().id(id).build(), answer);
  }

  /** Stores the token. One without an ID gets that of its record. */
  async saveToken(token) {
    if (!(token instanceof OAuthToken)) return;
    const answer = await this.#ask("save", members(token));
    if (!token.getId()) token.setId(answer.token.id);
  }

  /** Removes the record with the ID, if there is one. */
  async deleteToken(id) {
    await this.#ask("delete", { id });
  }

  /** Resolves to the tokens of all records that can be read. */
  async getTokens() {
    const answer = await this.#ask("list", {});
    return answer.tokens.map((record) => fill(new OAuthBuilder().id(record.id).build(), record));
  }

  /** Removes all records. */
  async deleteTokens() {
    await this.#ask("delete_all", {});
  }

  /**
   * Gets another access token for one that the API has refused before its end (INVALID_TOKEN). The one that is replaced
   * is what this store gave last for the ID of the token: the SDK leaves its own token with the access token of the
   * first call. Calls that were under way when it was replaced get the new one.
   */
  async rejected(token) {
    const request = members(token), given = this.#given.get(request.id);
    if (given) request.access_token = given.accessToken;
    const answer = await this.#ask("rejected", request);
    if (!(given?.until > Date.now())) this.#remember(answer.token.id, request.access_token, Date.now() + REPLACED);
    return fill(token, answer.token);
  }

  #give(token, answer) {
    const { id, access_token: accessToken } = answer.token;
    if (!(this.#given.get(id)?.until > Date.now())) this.#remember(id, accessToken);
    return fill(token, answer.token);
  }

  #remember(id, accessToken, until = 0) {
    this.#given.delete(id); // so that it is the last
    this.#given.set(id, { accessToken, until });
    if (this.#given.size > REMEMBERED) this.#given.delete(this.#given.keys().next().value);
  }

  async #ask(operation, request, nullIf) {
    let response;
    for (const pause of PAUSES) {
      try {
        response = await this.#post(operation, request);
        break;
      } catch (cause) {
        if (pause === null) throw new SDKException("TOKEN_STORE", "the tokenkeep agent does not answer: ", null, cause);
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    let answer;
    try {
      answer = JSON.parse(response.body);
    } catch {
      throw new SDKException("TOKEN_STORE", "what answers is no tokenkeep agent");
    }
    if (response.status === 200) return answer;
    if (nullIf && answer.class === nullIf) return null;
    const { class: kind, code, retry_after } = answer;
    throw new SDKException("TOKEN_STORE", "tokenkeep agent: " + answer.error, { class: kind, code, retry_after });
  }

  #post(operation, request) {
    const body = JSON.stringify(request);
    const headers = { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body), "X-Tokenkeep-Token": this.#header() };
    const options = { method: "POST", path: "/v1/" + operation, headers, timeout: this.timeout, agent: false };
    if (this.address.startsWith("unix:")) {
      Object.assign(options, { socketPath: this.address.slice("unix:".length), headers: { ...headers, Host: "localhost" } });
    } else {
      const { hostname, port } = new URL(this.address);
      Object.assign(options, { hostname, port });
    }
    return new Promise((resolve, reject) => {
      const sent = http.request(options, (response) => {
        const chunks = [];
        response.on("data", (chunk) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => resolve({ status: response.statusCode, body: Buffer.concat(chunks).toString("utf8") }));
      });
      sent.on("timeout", () => sent.destroy(new Error("timed out")));
      sent.on("error", reject);
      sent.end(body);
    });
  }

  #header() {
    const file = process.env.TOKENKEEP_AGENT_TOKEN_FILE;
    return this.token || process.env.TOKENKEEP_AGENT_TOKEN || (file ? readFileSync(file, "utf8").trim() : "");
  }
}

/** Returns the agent's JSON for a token. */
function members(token) {
  const request = {};
  for (const [member, name] of Object.entries(MEMBERS)) {
    const value = token["get" + name]();
    if (value !== null && value !== undefined && value !== "") request[member] = String(value);
  }
  if (token.getUserSignature()) request.user_name = token.getUserSignature().getName();
  return request;
}

/** Sets what a record has in a token. What the caller has chosen itself stays. */
function fill(token, record) {
  for (const [member, name] of Object.entries(MEMBERS)) {
    if (!CALLERS_OWN.includes(member) || !token["get" + name]()) token["set" + name](record[member] ?? null);
  }
  if (record.user_name) token.setUserSignature(new UserSignature(record.user_name));
  return token;
}
