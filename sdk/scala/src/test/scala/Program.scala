import com.zoho.api.authenticator.{OAuthToken, Token}
import com.zoho.crm.api.UserSignature
import com.zoho.crm.api.exception.SDKException
import io.github.tokenkeep.zohocrm.AgentStore
import java.net.{HttpURLConnection, URL}
import java.util.Scanner
import org.json.{JSONArray, JSONObject}
import scala.collection.mutable
import scala.io.StdIn.readLine

/** A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
  * line says and prints one line for it; or it waits for one line, and each of its threads does what an SDK does before a
  * call of the API, and prints a line for each call.
  */
object Program {
  def say(o: JSONObject): Unit = synchronized { println(o) }

  def json(name: String, value: Any): JSONObject = new JSONObject().put(name, value)

  def make(like: JSONObject): OAuthToken = {
    val t = new OAuthToken
    val names = like.keys
    while (names.hasNext) {
      val name = names.next().toString
      val value = like.getString(name)
      name match {
        case "id" => t.setId(value)
        case "user_name" => t.setUserSignature(new UserSignature(value))
        case "client_id" => t.setClientId(value)
        case "client_secret" => t.setClientSecret(value)
        case "redirect_url" => t.setRedirectURL(value)
        case "grant_token" => t.setGrantToken(value)
        case "refresh_token" => t.setRefreshToken(value)
        case "access_token" => t.setAccessToken(value)
        case "expires_in" => t.setExpiresIn(value)
      }
    }
    t
  }

  def members(token: Token): JSONObject = {
    val o = new JSONObject
    token match {
      case t: OAuthToken =>
        val all = List("id" -> t.getId, "user_name" -> Option(t.getUserSignature).map(_.getName).orNull, "client_id" -> t.getClientId,
          "client_secret" -> t.getClientSecret, "redirect_url" -> t.getRedirectURL, "grant_token" -> t.getGrantToken,
          "refresh_token" -> t.getRefreshToken, "access_token" -> t.getAccessToken, "expires_in" -> t.getExpiresIn,
          "api_domain" -> t.getAPIDomain)
        for ((name, value) <- all if value != null) o.put(name, value)
      case _ =>
    }
    o
  }

  /** Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent spares
    * it that. It appends the methods of the store that it calls.
    */
  def getToken(t: OAuthToken, store: AgentStore, calls: JSONArray): String = {
    val found =
      if (t.getId != null) {
        calls.put("find_token_by_id")
        val found = store.findTokenById(t.getId).asInstanceOf[OAuthToken]
        if (t.getAccessToken == null) t.setAccessToken(found.getAccessToken) // what the token has stays, an old one too
        if (t.getExpiresIn == null) t.setExpiresIn(found.getExpiresIn)
        found
      } else {
        calls.put("find_token")
        Option(store.findToken(t).asInstanceOf[OAuthToken]).getOrElse(t)
      }
    if (found.getAccessToken == null) throw new SDKException("TOKEN", "the SDK asks the token endpoint by itself")
    if (found.getExpiresIn != null && found.getExpiresIn.toLong - System.currentTimeMillis < 5000) {
      throw new SDKException("TOKEN", "the SDK refreshes the token by itself")
    }
    if (found.getExpiresIn == null && found.getId == null) {
      if (found.getUserSignature == null) found.setUserSignature(new UserSignature(user(found.getAccessToken)))
      calls.put("save_token")
      store.saveToken(found)
    }
    found.getAccessToken
  }

  /** Returns a call of the API that is to be made. */
  def get(path: String, accessToken: String): HttpURLConnection = {
    val c = new URL(sys.env("API") + path).openConnection.asInstanceOf[HttpURLConnection]
    c.setRequestProperty("Authorization", "Zoho-oauthtoken " + accessToken)
    c
  }

  def first(path: String, list: String, accessToken: String): JSONObject = {
    val in = get(path, accessToken).getInputStream
    try new JSONObject(new Scanner(in, "UTF-8").useDelimiter("\\A").next()).getJSONArray(list).getJSONObject(0)
    finally in.close()
  }

  def user(accessToken: String): String =
    first("/crm/v8/users?type=CurrentUser", "users", accessToken).getString("email") + ":" +
      first("/crm/v8/org", "org", accessToken).getString("zgid")

  /** Calls the API as the README shows it: a token that is refused is replaced once. */
  def call(t: OAuthToken, store: AgentStore): JSONArray = {
    def status: Int = get("/crm/v8/org", getToken(t, store, new JSONArray)).getResponseCode
    val statuses = new JSONArray().put(status)
    if (statuses.getInt(0) == 401) {
      store.rejected(t)
      statuses.put(status)
    }
    statuses
  }

  def found(result: JSONObject, found: Token, token: Token): Unit =
    result.put("none", found == null).put("same", found != null && (found eq token)).put("found", members(found))

  def act(step: JSONObject, store: AgentStore, token: Token, result: JSONObject): Unit = {
    def oauth = token.asInstanceOf[OAuthToken]
    step.getString("do") match {
      case "get_token" => result.put("access_token", getToken(oauth, store, result.getJSONArray("calls")))
      case "call" => result.put("statuses", call(oauth, store))
      case "find_token" => found(result, store.findToken(token), token)
      case "find_token_by_id" => found(result, store.findTokenById(step.getString("id")), token)
      case "save_token" => store.saveToken(token)
      case "delete_token" => store.deleteToken(step.getString("id"))
      case "delete_tokens" => store.deleteTokens()
      case "rejected" => found(result, store.rejected(oauth), token)
      case "get_tokens" => result.put("list", store.getTokens.foldLeft(new JSONArray)((list, each) => list.put(each.getId)))
    }
  }

  def perform(step: JSONObject, store: AgentStore, token: Token): Unit = {
    val result = json("calls", new JSONArray)
    try act(step, store, token, result)
    catch {
      case e: SDKException =>
        result.put("code", e.getCode).put("error", e.getMessage)
        Option(e.getDetails).foreach(details => result.put("class", details.optString("class")))
    }
    say(result.put("token", members(token)))
  }

  def steps(): Unit = {
    val store = new AgentStore
    val tokens = mutable.Map[String, Token]()
    for (line <- Iterator.continually(readLine()).takeWhile(_ != null)) {
      val step = new JSONObject(line)
      def text(name: String) = Some(name).filter(step.has(_)).map(step.getString(_))
      val on = step.optString("on")
      if (step.has("with")) tokens(on) = make(step.getJSONObject("with"))
      if (step.has("other")) tokens(on) = new Token { def getId = "x" }
      val other = step.has("address") || step.has("token")
      perform(step, if (other) new AgentStore(text("address"), text("token"), 1000) else store, tokens.getOrElse(on, null))
    }
  }

  def caller(order: JSONObject): Unit = {
    val t = make(order.getJSONObject("token"))
    val store = new AgentStore()
    for (_ <- 1 to order.getInt("calls")) {
      try say(json("access_token", getToken(t, store, new JSONArray)))
      catch { case e: SDKException => say(json("error", e.getMessage)) }
      Thread.sleep((order.getDouble("pause") * 1000).toLong)
    }
  }

  def main(args: Array[String]): Unit = {
    val order = new JSONObject(readLine())
    say(json("ready", true))
    if (order.getBoolean("steps")) steps()
    else {
      readLine()
      val threads = List.fill(order.getInt("threads"))(new Thread { override def run(): Unit = caller(order) })
      threads.foreach(_.start())
      threads.foreach(_.join())
    }
  }
}
