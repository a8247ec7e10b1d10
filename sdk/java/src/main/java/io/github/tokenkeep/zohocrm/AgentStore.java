package io.github.tokenkeep.zohocrm;

import com.zoho.api.authenticator.OAuthToken;
import com.zoho.api.authenticator.Token;
import com.zoho.api.authenticator.store.TokenStore;
import com.zoho.crm.api.UserSignature;
import com.zoho.crm.api.exception.SDKException;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.Proxy;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import org.json.JSONArray;
import org.json.JSONException;
import org.json.JSONObject;

/**
 * The TokenStore of the Zoho CRM Java SDK on a tokenkeep agent, which keeps the tokens in a secret manager and refreshes
 * them, once for all processes, before the SDK would. It is safe for use by threads.
 */
public class AgentStore implements TokenStore {
    /** In milliseconds, after a request without an answer: the agent may be starting, and every operation can be repeated. */
    private static final long[] PAUSES = {100, 500, 2500};

    private final String address;
    private final String token;
    private final int timeout;

    /** The ID and the access token of the record that a thread was given last. */
    private final ThreadLocal<String[]> given = new ThreadLocal<>();

    /** Asks the agent that the environment names: see the other constructor. */
    public AgentStore() {
        this(null, null, 35000);
    }

    /**
     * @param address such as "http://127.0.0.1:2780"; null means $TOKENKEEP_AGENT, else that
     * @param token of the agent's header; null means $TOKENKEEP_AGENT_TOKEN, else what is in the file that
     *     $TOKENKEEP_AGENT_TOKEN_FILE names
     * @param timeout of one request, in milliseconds; an agent that refreshes a token takes its time
     */
    public AgentStore(String address, String token, int timeout) {
        this.address = or(or(address, System.getenv("TOKENKEEP_AGENT")), "http://127.0.0.1:2780");
        this.token = token;
        this.timeout = timeout;
    }

    /** Returns the token, completed by its record and with a fresh access token; null if there is no record. */
    @Override
    public Token findToken(Token like) throws SDKException {
        if (!(like instanceof OAuthToken)) {
            return like;
        }
        JSONObject answer = ask("find", members((OAuthToken) like), "not_found");
        return answer == null ? null : give((OAuthToken) like, answer);
    }

    /** Returns the token of the record with the ID, with a fresh access token. */
    @Override
    public Token findTokenById(String id) throws SDKException {
        return give(new OAuthToken(), ask("find_by_id", object("id", id), null));
    }

    /** Stores the token. One without an ID gets that of its record. */
    @Override
    public void saveToken(Token saved) throws SDKException {
        if (saved instanceof OAuthToken) {
            JSONObject answer = ask("save", members((OAuthToken) saved), null);
            if (saved.getId() == null) {
                ((OAuthToken) saved).setId(text(answer.optJSONObject("token"), "id"));
            }
        }
    }

    /** Removes the record with the ID, if there is one. */
    @Override
    public void deleteToken(String id) throws SDKException {
        ask("delete", object("id", id), null);
    }

    /** Returns the tokens of all records that can be read. */
    @Override
    public List<Token> getTokens() throws SDKException {
        JSONArray records = ask("list", new JSONObject(), null).optJSONArray("tokens");
        List<Token> tokens = new ArrayList<>();
        for (int i = 0; i < records.length(); i++) {
            tokens.add(fill(new OAuthToken(), records.optJSONObject(i)));
        }
        return tokens;
    }

    /** Removes all records. */
    @Override
    public void deleteTokens() throws SDKException {
        ask("delete_all", new JSONObject(), null);
    }

    /**
     * Gets another access token for one that the API has refused before its end (INVALID_TOKEN). The one that is replaced
     * is what this thread was given last for the ID of the token: the SDK leaves its own token with the access token of
     * the first call.
     */
    public OAuthToken rejected(OAuthToken refused) throws SDKException {
        String[] last = given.get();
        boolean same = last != null && last[0].equals(refused.getId());
        return give(refused, ask("rejected", members(refused, same ? last[1] : refused.getAccessToken()), null));
    }

    private OAuthToken give(OAuthToken t, JSONObject answer) throws SDKException {
        JSONObject record = answer.optJSONObject("token");
        given.set(new String[] {record.optString("id"), record.optString("access_token")});
        return fill(t, record);
    }

    private JSONObject ask(String operation, JSONObject request, String nullIf) throws SDKException {
        StringBuilder body = new StringBuilder();
        int status;
        JSONObject answer;
        try {
            status = callWithRetry(operation, request, body);
            answer = new JSONObject(body.toString());
        } catch (IOException e) {
            throw new SDKException("TOKEN_STORE", "the tokenkeep agent does not answer", e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new SDKException("TOKEN_STORE", "interrupted", e);
        } catch (JSONException e) {
            throw new SDKException("TOKEN_STORE", "what answers is no tokenkeep agent"); // the cause quotes it
        } catch (IllegalArgumentException e) {
            throw new SDKException("TOKEN_STORE", "the address or the token of the tokenkeep agent is not valid"); // likewise
        }
        if (status == 200) {
            return answer;
        }
        if (nullIf != null && nullIf.equals(text(answer, "class"))) {
            return null;
        }
        String text = text(answer, "error");
        answer.remove("error");
        throw new SDKException("TOKEN_STORE", "tokenkeep agent: " + text, answer, null);
    }

    private int callWithRetry(String operation, JSONObject request, StringBuilder answer) throws IOException, InterruptedException {
        for (long pause : PAUSES) {
            try {
                return post(operation, request, answer);
            } catch (IOException e) {
                answer.setLength(0);
                Thread.sleep(pause);
            }
        }
        return post(operation, request, answer);
    }

    private int post(String operation, JSONObject request, StringBuilder answer) throws IOException {
        HttpURLConnection c = (HttpURLConnection) new URL(address + "/v1/" + operation).openConnection(Proxy.NO_PROXY);
        c.setRequestMethod("POST");
        c.setConnectTimeout(timeout);
        c.setReadTimeout(timeout);
        c.setDoOutput(true);
        c.setInstanceFollowRedirects(false);
        c.setRequestProperty("Content-Type", "application/json");
        c.setRequestProperty("X-Tokenkeep-Token", header());
        try (OutputStream out = c.getOutputStream()) {
            out.write(request.toString().getBytes(StandardCharsets.UTF_8));
        }
        int status = c.getResponseCode();
        try (InputStream in = status < 400 ? c.getInputStream() : c.getErrorStream()) {
            ByteArrayOutputStream all = new ByteArrayOutputStream();
            byte[] part = new byte[4096];
            for (int n = in.read(part); n >= 0; n = in.read(part)) {
                all.write(part, 0, n);
            }
            answer.append(all.toString("UTF-8"));
        }
        return status;
    }

    private String header() throws IOException {
        String given = or(token, System.getenv("TOKENKEEP_AGENT_TOKEN"));
        String file = System.getenv("TOKENKEEP_AGENT_TOKEN_FILE");
        if (given == null && file != null) {
            given = new String(Files.readAllBytes(Paths.get(file)), StandardCharsets.UTF_8).trim();
        }
        return or(given, "");
    }

    /** Returns the agent's JSON for a token. */
    private static JSONObject members(OAuthToken t) throws SDKException {
        return members(t, t.getAccessToken());
    }

    private static JSONObject members(OAuthToken t, String accessToken) throws SDKException {
        UserSignature user = t.getUserSignature();
        return object("id", t.getId(), "user_name", user == null ? null : user.getName(), "client_id", t.getClientId(),
            "client_secret", t.getClientSecret(), "refresh_token", t.getRefreshToken(), "access_token", accessToken,
            "grant_token", t.getGrantToken(), "expiry_time", t.getExpiresIn(), "redirect_url", t.getRedirectURL(),
            "api_domain", t.getAPIDomain());
    }

    /** Sets what a record has in a token. What the caller has chosen itself stays. */
    private static OAuthToken fill(OAuthToken t, JSONObject record) throws SDKException {
        t.setId(text(record, "id"));
        t.setAccessToken(text(record, "access_token"));
        t.setRefreshToken(text(record, "refresh_token"));
        t.setExpiresIn(text(record, "expiry_time"));
        t.setAPIDomain(text(record, "api_domain"));
        t.setClientId(or(t.getClientId(), text(record, "client_id")));
        t.setClientSecret(or(t.getClientSecret(), text(record, "client_secret")));
        t.setGrantToken(or(t.getGrantToken(), text(record, "grant_token")));
        t.setRedirectURL(or(t.getRedirectURL(), text(record, "redirect_url")));
        if (record.has("user_name")) {
            t.setUserSignature(new UserSignature(text(record, "user_name")));
        }
        return t;
    }

    private static JSONObject object(String... members) throws SDKException {
        JSONObject o = new JSONObject();
        try {
            for (int i = 0; i < members.length; i += 2) {
                o.put(members[i], members[i + 1]); // null puts nothing
            }
        } catch (JSONException e) {
            throw new SDKException("TOKEN_STORE", "the token cannot be written as JSON"); // the cause quotes it
        }
        return o;
    }

    private static String text(JSONObject o, String member) {
        return o.has(member) ? o.optString(member) : null;
    }

    private static String or(String a, String b) {
        return a == null || a.isEmpty() ? b : a;
    }
}
