import { OAuthToken, Token, TokenStore } from "@zohocrm/nodejs-sdk-8.0";

/** What an AgentStore may be told. */
export interface AgentStoreOptions {
  /** "http://127.0.0.1:2780" or "unix:PATH"; default $TOKENKEEP_AGENT, else the former. */
  address?: string;
  /** Of the agent's header; default $TOKENKEEP_AGENT_TOKEN, else what is in $TOKENKEEP_AGENT_TOKEN_FILE. */
  token?: string;
  /** Of one request, in milliseconds; default 35000. */
  timeout?: number;
}

/** A TokenStore whose methods ask a tokenkeep agent. They reject with the SDK's SDKException. */
export class AgentStore extends TokenStore {
  constructor(options?: AgentStoreOptions);
  findToken(token: Token): Promise<Token | null>;
  findTokenById(id: string): Promise<Token>;
  saveToken(token: Token): Promise<void>;
  deleteToken(id: string): Promise<void>;
  getTokens(): Promise<Array<Token>>;
  deleteTokens(): Promise<void>;
  /** Gets another access token for one that the API has refused before its end (INVALID_TOKEN). */
  rejected(token: OAuthToken): Promise<OAuthToken>;
}
