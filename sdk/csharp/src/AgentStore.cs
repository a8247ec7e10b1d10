using System;
using System.Collections.Generic;
using System.IO;
using System.Net.Sockets;
using System.Threading;
using Com.Zoho.API.Authenticator;
using Com.Zoho.API.Authenticator.Store;
using Com.Zoho.API.Exception;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;
using UserSignature = Com.Zoho.Crm.API.UserSignature;

namespace Tokenkeep.ZohoCRM
{
    /// <summary>
    /// The token store of the Zoho CRM C# SDK on a tokenkeep agent. The agent keeps the tokens in a secret manager. It
    /// refreshes them, once for all processes, before the SDK would. The store is safe for use by threads.
    /// </summary>
    public class AgentStore : ITokenStore
    {
        private const string Code = "TOKEN_STORE";
        private const string Stranger = "what answers is no tokenkeep agent";

        /// <summary>In milliseconds, after a request without an answer. The agent may be starting, and every operation
        /// can be repeated.</summary>
        private static readonly int[] Pauses = { 100, 500, 2500 };

        private readonly string address;
        private readonly string token;
        private readonly int timeout;

        /// <summary>The ID and the access token of the record that a thread or an async method was given last.</summary>
        private readonly AsyncLocal<string[]> given = new AsyncLocal<string[]>();

        /// <summary>Creates a store. Without arguments, it asks the agent that the environment names.</summary>
        /// <param name="address">"http://127.0.0.1:2780" or "unix:PATH"; null means $TOKENKEEP_AGENT, else the
        /// former</param>
        /// <param name="token">of the agent's header; null means $TOKENKEEP_AGENT_TOKEN, else what is in the file that
        /// $TOKENKEEP_AGENT_TOKEN_FILE names</param>
        /// <param name="timeout">of one request, in milliseconds; an agent that refreshes a token takes its time</param>
        public AgentStore(string address = null, string token = null, int timeout = 35000)
        {
            this.address = Or(Or(address, Environment.GetEnvironmentVariable("TOKENKEEP_AGENT")), "http://127.0.0.1:2780");
            this.token = token;
            this.timeout = timeout;
        }

        /// <summary>Returns the token, completed by its record and with a fresh access token; null if there is no
        /// record.</summary>
        public IToken FindToken(IToken token)
        {
            if (!(token is OAuthToken like))
            {
                return token;
            }
            JObject answer = Ask("find", Members(like, like.AccessToken), "not_found");
            return answer == null ? null : Give(like, answer);
        }

        /// <summary>Returns the token of the record with the ID, with a fresh access token.</summary>
        public IToken FindTokenById(string id)
        {
            return Give(new OAuthToken(), Ask("find_by_id", Object("id", id)));
        }

        /// <summary>Stores the token. One without an ID gets that of its record.</summary>
        public void SaveToken(IToken token)
        {
            if (token is OAuthToken saved)
            {
                JObject answer = Ask("save", Members(saved, saved.AccessToken));
                saved.Id = Or(saved.Id, Text(Record(answer), "id"));
            }
        }

        /// <summary>Removes the record with the ID, if there is one.</summary>
        public void DeleteToken(string id)
        {
            Ask("delete", Object("id", id));
        }

        /// <summary>Returns the tokens of all records that can be read.</summary>
        public List<IToken> GetTokens()
        {
            if (!(Ask("list", new JObject())["tokens"] is JArray records))
            {
                throw new SDKException(Code, Stranger);
            }
            var tokens = new List<IToken>();
            foreach (JToken record in records)
            {
                tokens.Add(Fill(new OAuthToken(), (JObject)record));
            }
            return tokens;
        }

        /// <summary>Removes all records.</summary>
        public void DeleteTokens()
        {
            Ask("delete_all", new JObject());
        }

        /// <summary>
        /// Gets another access token for one that the API has refused before its end (INVALID_TOKEN). It replaces the
        /// access token that this thread or async method was given last for the ID of the token. The SDK's own token does
        /// not have that one: the SDK never changes a token with an ID.
        /// </summary>
        public OAuthToken Rejected(OAuthToken refused)
        {
            string[] last = given.Value;
            bool same = last != null && last[0] == refused.Id;
            return Give(refused, Ask("rejected", Members(refused, same ? last[1] : refused.AccessToken)));
        }

        private OAuthToken Give(OAuthToken t, JObject answer)
        {
            JObject record = Record(answer);
            given.Value = new[] { Text(record, "id"), Text(record, "access_token") };
            return Fill(t, record);
        }

        private JObject Ask(string operation, JObject request, string nullIf = null)
        {
            int status;
            JObject answer;
            try
            {
                answer = Parse(CallWithRetry(operation, request.ToString(Formatting.None), out status));
            }
            catch (Exception e) when (Unanswered(e) || e is UnauthorizedAccessException)
            {
                throw new SDKException(Code, "the tokenkeep agent does not answer", e);
            }
            catch (JsonException)
            {
                throw new SDKException(Code, Stranger); // the cause quotes it
            }
            catch (ArgumentException e)
            {
                throw new SDKException(Code, "the address or the token of the tokenkeep agent is not valid: " + e.Message);
            }
            if (status == 200)
            {
                return answer;
            }
            if (nullIf != null && nullIf == Text(answer, "class"))
            {
                return null;
            }
            string text = Text(answer, "error");
            answer.Remove("error");
            throw new SDKException(Code, "tokenkeep agent: " + text, answer);
        }

        private string CallWithRetry(string operation, string request, out int status)
        {
            foreach (int pause in Pauses)
            {
                try
                {
                    return Post(operation, request, out status);
                }
                catch (Exception e) when (Unanswered(e))
                {
                    Thread.Sleep(pause);
                }
            }
            return Post(operation, request, out status);
        }

        private static bool Unanswered(Exception e)
        {
            return e is SocketException || e is IOException;
        }

        private string Post(string operation, string request, out int status)
        {
            return AgentRequest.Post(address, "/v1/" + operation, Header(), request, timeout, out status);
        }

        private string Header()
        {
            string own = Or(token, Environment.GetEnvironmentVariable("TOKENKEEP_AGENT_TOKEN"));
            string file = Environment.GetEnvironmentVariable("TOKENKEEP_AGENT_TOKEN_FILE");
            if (string.IsNullOrEmpty(own) && !string.IsNullOrEmpty(file))
            {
                own = File.ReadAllText(file);
            }
            return Or(own, "").Trim();
        }

        /// <summary>Reads an object. Unlike JObject.Parse, it leaves a text that looks like a date as it is.</summary>
        private static JObject Parse(string text)
        {
            using (var reader = new JsonTextReader(new StringReader(text)) { DateParseHandling = DateParseHandling.None })
            {
                return JObject.Load(reader);
            }
        }

        private static JObject Record(JObject answer)
        {
            return answer["token"] as JObject ?? throw new SDKException(Code, Stranger);
        }

        /// <summary>Returns the agent's JSON for a token with another access token.</summary>
        private static JObject Members(OAuthToken t, string accessToken)
        {
            return Object("id", t.Id, "user_name", t.UserSignature?.Name, "client_id", t.ClientId, "client_secret", t.ClientSecret,
                "refresh_token", t.RefreshToken, "access_token", accessToken, "grant_token", t.GrantToken,
                "expiry_time", t.ExpiresIn, "redirect_url", t.RedirectURL, "api_domain", t.APIDomain);
        }

        /// <summary>Sets what a record has in a token. What the caller has chosen itself stays.</summary>
        private static OAuthToken Fill(OAuthToken t, JObject record)
        {
            t.Id = Text(record, "id");
            t.AccessToken = Text(record, "access_token");
            t.RefreshToken = Text(record, "refresh_token");
            t.ExpiresIn = Text(record, "expiry_time");
            t.APIDomain = Text(record, "api_domain");
            t.ClientId = Or(t.ClientId, Text(record, "client_id"));
            t.ClientSecret = Or(t.ClientSecret, Text(record, "client_secret"));
            t.GrantToken = Or(t.GrantToken, Text(record, "grant_token"));
            t.RedirectURL = Or(t.RedirectURL, Text(record, "redirect_url"));
            string user = Text(record, "user_name");
            if (user != null)
            {
                t.UserSignature = new UserSignature(user);
            }
            return t;
        }

        /// <summary>Returns an object of names and values. It has no member for an absent value.</summary>
        private static JObject Object(params string[] members)
        {
            var o = new JObject();
            for (int i = 0; i < members.Length; i += 2)
            {
                if (!string.IsNullOrEmpty(members[i + 1]))
                {
                    o[members[i]] = members[i + 1];
                }
            }
            return o;
        }

        private static string Text(JObject o, string member)
        {
            return (string)o[member];
        }

        private static string Or(string a, string b)
        {
            return string.IsNullOrEmpty(a) ? b : a;
        }
    }
}
