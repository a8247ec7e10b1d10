// A program of the tests. It reads an order as one line of JSON and says that it is ready.
// Then it does what each further line says and prints one line for it; or it waits for one
// line, and each of its callers does what an SDK does before a call of the API, and prints a
// line for each call.
import { registerHooks } from "./hooks.js";
import readline from "node:readline";

await registerHooks();
const { AgentStore } = await import("../index.js");
const { OAuthToken, SDKException, UserSignature, get, getToken } = await import("@zohocrm/nodejs-sdk-8.0");

const say = (answer) => process.stdout.write(JSON.stringify(answer) + "\n");

const NAMES = {
  id: "Id", client_id: "ClientId", client_secret: "ClientSecret", redirect_url: "RedirectURL", refresh_token: "RefreshToken",
  grant_token: "GrantToken", access_token: "AccessToken", expires_in: "ExpiresIn", api_domain: "APIDomain",
};

function make(like) {
  const token = new OAuthToken();
  for (const [name, value] of Object.entries(like)) {
    if (name === "user_name") token.setUserSignature(new UserSignature(value));
    else token["set" + NAMES[name]](value);
  }
  return token;
}

function members(token) {
  const all = {};
  if (!(token instanceof OAuthToken)) return all;
  for (const [name, accessor] of Object.entries(NAMES)) all[name] = token["get" + accessor]() ?? undefined;
  return { ...all, user_name: token.getUserSignature()?.getName() };
}

async function caller(order) {
  const token = make(order.token), store = new AgentStore();
  for (let i = 0; i < order.calls; i++) {
    try {
      say({ access_token: await getToken(token, store, []) });
    } catch (error) {
      say({ error: error instanceof SDKException ? error.message : "another error: " + error });
    }
    await new Promise((resolve) => setTimeout(resolve, order.pause * 1000));
  }
}

// Calls the API as the README shows it: a token that is refused is replaced once.
async function call(token, store) {
  const once = async () => (await get("/crm/v8/org", await getToken(token, store, []))).status;
  const statuses = [await once()];
  if (statuses[0] === 401) {
    await store.rejected(token);
    statuses.push(await once());
  }
  return statuses;
}

const METHODS = {
  find_token: "findToken", find_token_by_id: "findTokenById", save_token: "saveToken", delete_token: "deleteToken",
  get_tokens: "getTokens", delete_tokens: "deleteTokens", rejected: "rejected",
};

async function perform(step, store, token) {
  const result = { calls: [] };
  try {
    if (step.do === "get_token") {
      result.access_token = await getToken(token, store, result.calls);
    } else if (step.do === "call") {
      result.statuses = await call(token, store);
    } else {
      const found = await store[METHODS[step.do]](step.id ?? token);
      if (Array.isArray(found)) result.list = found.map((each) => each.getId());
      else Object.assign(result, { none: found === null || found === undefined, same: found === token, found: members(found) });
    }
  } catch (error) {
    if (!(error instanceof SDKException)) throw error;
    Object.assign(result, { code: error.code, error: error.message, class: error.details?.class });
  }
  say({ token: members(token), ...result });
}

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const order = JSON.parse((await lines.next()).value);
say({ ready: true });
if (order.steps) {
  const store = new AgentStore(), tokens = {};
  for await (const line of lines) {
    const step = JSON.parse(line);
    if (step.with || step.other) tokens[step.on] = step.with ? make(step.with) : {};
    await perform(step, step.address || step.token ? new AgentStore(step) : store, tokens[step.on]);
  }
} else {
  await lines.next();
  await Promise.all(Array.from({ length: order.threads }, () => caller(order)));
}
process.exit(0);
