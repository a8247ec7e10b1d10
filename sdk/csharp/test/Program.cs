using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using Com.Zoho.API.Authenticator;
using Com.Zoho.API.Exception;
using Newtonsoft.Json;
using Newtonsoft.Json.Linq;
using Tokenkeep.ZohoCRM;
using UserSignature = Com.Zoho.Crm.API.UserSignature;

/// <summary>
/// A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
/// line says and prints one line for it; or it waits for one line, and each of its threads does what an SDK does before a
/// call of the API, and prints a line for each call.
/// </summary>
public static class Program
{
    static readonly TextReader input = new StreamReader(Console.OpenStandardInput(), new UTF8Encoding(false));
    static readonly TextWriter output = new StreamWriter(Console.OpenStandardOutput(), new UTF8Encoding(false)) { AutoFlush = true };

    sealed class OtherToken : IToken
    {
        public string GetId() { return "x"; }
    }

    static void Say(JObject o)
    {
        string line = o.ToString(Formatting.None);
        lock (output) output.WriteLine(line);
    }

    static JObject Parse(string text)
    {
        return JObject.Load(new JsonTextReader(new StringReader(text)) { DateParseHandling = DateParseHandling.None });
    }

    static OAuthToken Make(JObject like)
    {
        var t = new OAuthToken();
        foreach (var member in like)
        {
            string value = (string)member.Value;
            switch (member.Key)
            {
                case "id": t.Id = value; break;
                case "user_name": t.UserSignature = new UserSignature(value); break;
                case "client_id": t.ClientId = value; break;
                case "client_secret": t.ClientSecret = value; break;
                case "redirect_url": t.RedirectURL = value; break;
                case "grant_token": t.GrantToken = value; break;
                case "refresh_token": t.RefreshToken = value; break;
                case "access_token": t.AccessToken = value; break;
                case "expires_in": t.ExpiresIn = value; break;
                default: throw new ArgumentException(member.Key);
            }
        }
        return t;
    }

    static JObject Members(IToken token)
    {
        var o = new JObject();
        if (!(token is OAuthToken t)) return o;
        var all = new Dictionary<string, string>
        {
            { "id", t.Id }, { "user_name", t.UserSignature?.Name }, { "client_id", t.ClientId }, { "client_secret", t.ClientSecret },
            { "redirect_url", t.RedirectURL }, { "grant_token", t.GrantToken }, { "refresh_token", t.RefreshToken },
            { "access_token", t.AccessToken }, { "expires_in", t.ExpiresIn }, { "api_domain", t.APIDomain },
        };
        foreach (var each in all.Where(each => each.Value != null)) o[each.Key] = each.Value;
        return o;
    }

    /// <summary>
    /// Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent spares
    /// it that. It appends the methods of the store that it calls. The SDK leaves a token with an ID as it is. It compares
    /// the end of the access token with five milliseconds, where this takes the five seconds of its documentation.
    /// </summary>
    static string GetToken(OAuthToken t, AgentStore store, JArray calls)
    {
        OAuthToken found;
        if (t.Id != null)
        {
            calls.Add("find_token_by_id");
            found = (OAuthToken)store.FindTokenById(t.Id);
        }
        else
        {
            calls.Add("find_token");
            found = (OAuthToken)store.FindToken(t) ?? t;
        }
        if (string.IsNullOrEmpty(found.AccessToken)) throw new SDKException("TOKEN", "the SDK asks the token endpoint by itself");
        if (found.ExpiresIn != null && long.Parse(found.ExpiresIn) - DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() < 5000)
        {
            throw new SDKException("TOKEN", "the SDK refreshes the token by itself");
        }
        if (found.ExpiresIn == null && found.Id == null)
        {
            if (found.UserSignature == null) found.UserSignature = new UserSignature(User(found.AccessToken));
            calls.Add("save_token");
            store.SaveToken(found);
        }
        return found.AccessToken;
    }

    /// <summary>Makes a call of the API, and returns its status and its answer.</summary>
    static int Get(string path, string accessToken, out string body)
    {
        var call = (HttpWebRequest)WebRequest.Create(Environment.GetEnvironmentVariable("API") + path);
        call.Headers["Authorization"] = "Zoho-oauthtoken " + accessToken;
        HttpWebResponse response;
        try
        {
            response = (HttpWebResponse)call.GetResponse();
        }
        catch (WebException e) when (e.Response != null)
        {
            response = (HttpWebResponse)e.Response;
        }
        using (response)
        using (var from = new StreamReader(response.GetResponseStream()))
        {
            body = from.ReadToEnd();
            return (int)response.StatusCode;
        }
    }

    static string First(string path, string list, string member, string accessToken)
    {
        Get(path, accessToken, out string body);
        return (string)Parse(body)[list][0][member];
    }

    static string User(string accessToken)
    {
        string email = First("/crm/v8/users?type=CurrentUser", "users", "email", accessToken);
        return email + ":" + First("/crm/v8/org", "org", "zgid", accessToken);
    }

    /// <summary>Calls the API as the README shows it: a token that is refused is replaced once, by whatever thread the
    /// method continues on.</summary>
    static async Task<JArray> Call(OAuthToken t, AgentStore store)
    {
        var statuses = new JArray(Get("/crm/v8/org", GetToken(t, store, new JArray()), out _));
        if ((int)statuses[0] == 401)
        {
            await Task.Delay(1).ConfigureAwait(false);
            store.Rejected(t);
            statuses.Add(Get("/crm/v8/org", GetToken(t, store, new JArray()), out _));
        }
        return statuses;
    }

    static void Found(JObject result, IToken found, IToken token)
    {
        result["none"] = found == null;
        result["same"] = found != null && ReferenceEquals(found, token);
        result["found"] = Members(found);
    }

    static void Act(JObject step, AgentStore store, IToken token, JObject result)
    {
        switch ((string)step["do"])
        {
            case "get_token": result["access_token"] = GetToken((OAuthToken)token, store, (JArray)result["calls"]); break;
            case "call": result["statuses"] = Call((OAuthToken)token, store).GetAwaiter().GetResult(); break;
            case "find_token": Found(result, store.FindToken(token), token); break;
            case "find_token_by_id": Found(result, store.FindTokenById((string)step["id"]), token); break;
            case "save_token": store.SaveToken(token); break;
            case "delete_token": store.DeleteToken((string)step["id"]); break;
            case "delete_tokens": store.DeleteTokens(); break;
            case "rejected": Found(result, store.Rejected((OAuthToken)token), token); break;
            case "get_tokens": result["list"] = new JArray(store.GetTokens().Select(each => each.GetId())); break;
            default: throw new ArgumentException((string)step["do"]);
        }
    }

    static void Perform(JObject step, AgentStore store, IToken token)
    {
        var result = new JObject { { "calls", new JArray() } };
        try
        {
            Act(step, store, token, result);
        }
        catch (SDKException e)
        {
            result["code"] = e.Code;
            result["error"] = e.Message;
            if (e.Details != null) result["class"] = e.Details["class"];
        }
        result["token"] = Members(token);
        Say(result);
    }

    static void Steps()
    {
        var store = new AgentStore();
        var tokens = new Dictionary<string, IToken>();
        for (string line = input.ReadLine(); line != null; line = input.ReadLine())
        {
            JObject step = Parse(line);
            string on = (string)step["on"];
            if (step["with"] != null) tokens[on] = Make((JObject)step["with"]);
            if (step["other"] != null) tokens[on] = new OtherToken();
            string address = (string)step["address"], header = (string)step["token"];
            bool other = address != null || header != null;
            tokens.TryGetValue(on, out IToken token);
            Perform(step, other ? new AgentStore(address, header, 1000) : store, token);
        }
    }

    static void Caller(JObject order)
    {
        OAuthToken t = Make((JObject)order["token"]);
        var store = new AgentStore();
        for (int i = 0; i < (int)order["calls"]; i++)
        {
            try
            {
                Say(new JObject { { "access_token", GetToken(t, store, new JArray()) } });
            }
            catch (SDKException e)
            {
                Say(new JObject { { "error", e.ToString() } });
            }
            Thread.Sleep((int)((double)order["pause"] * 1000));
        }
    }

    public static void Main()
    {
        JObject order = Parse(input.ReadLine());
        Say(new JObject { { "ready", true } });
        if ((bool)order["steps"])
        {
            Steps();
            return;
        }
        input.ReadLine();
        List<Thread> threads = Enumerable.Range(0, (int)order["threads"]).Select(_ => new Thread(() => Caller(order))).ToList();
        threads.ForEach(each => each.Start());
        threads.ForEach(each => each.Join());
    }
}
