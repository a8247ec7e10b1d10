import com.zoho.api.authenticator.OAuthToken;
import com.zoho.api.authenticator.Token;
import com.zoho.crm.api.UserSignature;
import com.zoho.crm.api.exception.SDKException;
import io.github.tokenkeep.zohocrm.AgentStore;
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.HttpURLConnection;
import java.net.URL;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Scanner;
import org.json.JSONArray;
import org.json.JSONObject;

/**
 * A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
 * line says and prints one line for it; or it waits for one line, and each of its threads does what an SDK does before a
 * call of the API, and prints a line for each call.
 */
public class Program {
    static synchronized void say(JSONObject o) { System.out.println(o); }

    static JSONObject object(String name, Object value) throws Exception { return new JSONObject().put(name, value); }

    static OAuthToken make(JSONObject like) throws Exception {
        OAuthToken t = new OAuthToken();
        for (Iterator<?> names = like.keys(); names.hasNext();) {
            String name = (String) names.next(), value = like.getString(name);
            switch (name) {
                case "id": t.setId(value); break;
                case "user_name": t.setUserSignature(new UserSignature(value)); break;
                case "client_id": t.setClientId(value); break;
                case "client_secret": t.setClientSecret(value); break;
                case "redirect_url": t.setRedirectURL(value); break;
                case "grant_token": t.setGrantToken(value); break;
                case "refresh_token": t.setRefreshToken(value); break;
                case "access_token": t.setAccessToken(value); break;
                case "expires_in": t.setExpiresIn(value); break;
                default: throw new IllegalArgumentException(name);
            }
        }
        return t;
    }

    static JSONObject members(Token token) throws Exception {
        JSONObject o = new JSONObject();
        if (!(token instanceof OAuthToken)) return o;
        OAuthToken t = (OAuthToken) token;
        if (t.getUserSignature() != null) o.put("user_name", t.getUserSignature().getName());
        return o.put("id", t.getId()).put("client_id", t.getClientId()).put("client_secret", t.getClientSecret())
            .put("redirect_url", t.getRedirectURL()).put("grant_token", t.getGrantToken()).put("refresh_token", t.getRefreshToken())
            .put("access_token", t.getAccessToken()).put("expires_in", t.getExpiresIn()).put("api_domain", t.getAPIDomain());
    }

    /**
     * Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent spares
     * it that. It appends the methods of the store that it calls.
     */
    static String getToken(OAuthToken t, AgentStore store, JSONArray calls) throws Exception {
        OAuthToken found;
        if (t.getId() != null) {
            calls.put("find_token_by_id");
            found = (OAuthToken) store.findTokenById(t.getId());
            if (t.getAccessToken() == null) t.setAccessToken(found.getAccessToken()); // what the token has stays, an old one too
            if (t.getExpiresIn() == null) t.setExpiresIn(found.getExpiresIn());
        } else {
            calls.put("find_token");
            found = (OAuthToken) store.findToken(t);
        }
        if (found == null) found = t;
        if (found.getAccessToken() == null) throw new SDKException("TOKEN", "the SDK asks the token endpoint by itself");
        if (found.getExpiresIn() != null && Long.parseLong(found.getExpiresIn()) - System.currentTimeMillis() < 5000) {
            throw new SDKException("TOKEN", "the SDK refreshes the token by itself");
        }
        if (found.getExpiresIn() == null && found.getId() == null) {
            if (found.getUserSignature() == null) found.setUserSignature(new UserSignature(user(found.getAccessToken())));
            calls.put("save_token");
            store.saveToken(found);
        }
        return found.getAccessToken();
    }

    /** Returns a call of the API that is to be made. */
    static HttpURLConnection get(String path, String accessToken) throws Exception {
        HttpURLConnection c = (HttpURLConnection) new URL(System.getenv("API") + path).openConnection();
        c.setRequestProperty("Authorization", "Zoho-oauthtoken " + accessToken);
        return c;
    }

    static JSONObject first(String path, String list, String accessToken) throws Exception {
        try (InputStream in = get(path, accessToken).getInputStream()) {
            return new JSONObject(new Scanner(in, "UTF-8").useDelimiter("\\A").next()).getJSONArray(list).getJSONObject(0);
        }
    }

    static String user(String accessToken) throws Exception {
        String email = first("/crm/v8/users?type=CurrentUser", "users", accessToken).getString("email");
        return email + ":" + first("/crm/v8/org", "org", accessToken).getString("zgid");
    }

    /** Calls the API as the README shows it: a token that is refused is replaced once. */
    static JSONArray call(OAuthToken t, AgentStore store) throws Exception {
        int status = get("/crm/v8/org", getToken(t, store, new JSONArray())).getResponseCode();
        JSONArray statuses = new JSONArray().put(status);
        if (status == 401) {
            store.rejected(t);
            statuses.put(get("/crm/v8/org", getToken(t, store, new JSONArray())).getResponseCode());
        }
        return statuses;
    }

    static void found(JSONObject result, Token found, Token token) throws Exception {
        result.put("none", found == null).put("same", found != null && found == token).put("found", members(found));
    }

    static void perform(JSONObject step, AgentStore store, Token token) throws Exception {
        JSONArray calls = new JSONArray();
        JSONObject result = object("calls", calls);
        try {
            switch (step.getString("do")) {
                case "get_token": result.put("access_token", getToken((OAuthToken) token, store, calls)); break;
                case "call": result.put("statuses", call((OAuthToken) token, store)); break;
                case "find_token": found(result, store.findToken(token), token); break;
                case "find_token_by_id": found(result, store.findTokenById(step.getString("id")), token); break;
                case "save_token": store.saveToken(token); break;
                case "delete_token": store.deleteToken(step.getString("id")); break;
                case "delete_tokens": store.deleteTokens(); break;
                case "rejected": found(result, store.rejected((OAuthToken) token), token); break;
                case "get_tokens":
                    JSONArray list = new JSONArray();
                    for (Token each : store.getTokens()) list.put(each.getId());
                    result.put("list", list);
                    break;
                default: throw new IllegalArgumentException(step.getString("do"));
            }
        } catch (SDKException e) {
            result.put("code", e.getCode()).put("error", e.getMessage());
            if (e.getDetails() != null) result.put("class", e.getDetails().optString("class"));
        }
        say(result.put("token", members(token)));
    }

    static void steps(BufferedReader in) throws Exception {
        AgentStore store = new AgentStore();
        Map<String, Token> tokens = new HashMap<>();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            JSONObject step = new JSONObject(line);
            if (step.has("with")) tokens.put(step.getString("on"), make(step.getJSONObject("with")));
            if (step.has("other")) tokens.put(step.getString("on"), () -> "x");
            boolean other = step.has("address") || step.has("token");
            String address = step.has("address") ? step.getString("address") : null, header = step.has("token") ? step.getString("token") : null;
            perform(step, other ? new AgentStore(address, header, 1000) : store, tokens.get(step.optString("on")));
        }
    }

    static void caller(JSONObject order) {
        try {
            OAuthToken t = make(order.getJSONObject("token"));
            AgentStore store = new AgentStore();
            for (int i = 0; i < order.getInt("calls"); i++) {
                try {
                    say(object("access_token", getToken(t, store, new JSONArray())));
                } catch (SDKException e) {
                    say(object("error", e.getMessage()));
                }
                Thread.sleep((long) (order.getDouble("pause") * 1000));
            }
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        JSONObject order = new JSONObject(in.readLine());
        say(object("ready", true));
        if (order.getBoolean("steps")) {
            steps(in);
            return;
        }
        in.readLine();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < order.getInt("threads"); i++) threads.add(new Thread(() -> caller(order)));
        for (Thread t : threads) t.start();
        for (Thread t : threads) t.join();
    }
}
