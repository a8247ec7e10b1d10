package io.github.tokenkeep.zohocrm

import com.zoho.api.authenticator.{OAuthToken, Token}
import com.zoho.api.authenticator.store.TokenStore
import com.zoho.crm.api.UserSignature
import com.zoho.crm.api.exception.SDKException
import java.io.{ByteArrayOutputStream, IOException, InputStream}
import java.net.{HttpURLConnection, Proxy, URL}
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.{Files, Paths}
import org.json.{JSONException, JSONObject}
import scala.collection.mutable.ArrayBuffer

/** The TokenStore of the Zoho CRM Scala SDK on a tokenkeep agent. The agent keeps the tokens in a secret manager. It
  * refreshes them, once for all processes, before the SDK would. The store is safe for use by threads.
  *
  * @param address such as "http://127.0.0.1:2780"; None means $TOKENKEEP_AGENT, else that
  * @param token of the agent's header; None means $TOKENKEEP_AGENT_TOKEN, else what is in the file that
  *   $TOKENKEEP_AGENT_TOKEN_FILE names
  * @param timeout of one request, in milliseconds; an agent that refreshes a token takes its time
  */
class AgentStore(address: Option[String] = None, token: Option[String] = None, timeout: Int = 35000) extends TokenStore {
  import AgentStore._

  private val base = address.orElse(environment("TOKENKEEP_AGENT")).getOrElse("http://127.0.0.1:2780")

  /** The ID and the access token of the record that a thread was given last. */
  private val last = new ThreadLocal[(String, String)]

  /** Returns the token, completed by its record and with a fresh access token; null if there is no record. */
  @throws[SDKException]
  override def findToken(token: Token): Token = token match {
    case like: OAuthToken =>
      val (status, answer) = exchange("find", members(like, like.getAccessToken))
      if (status != 200 && text(answer, "class") == "not_found") null else give(like, good(status, answer))
    case other => other
  }

  /** Returns the token of the record with the ID, with a fresh access token. */
  @throws[SDKException]
  override def findTokenById(id: String): Token = give(new OAuthToken(), ask("find_by_id", json("id" -> id)))

  /** Stores the token. One without an ID gets that of its record. */
  @throws[SDKException]
  override def saveToken(token: Token): Unit = token match {
    case saved: OAuthToken =>
      val answer = ask("save", members(saved, saved.getAccessToken))
      saved.setId(or(saved.getId, text(record(answer), "id")))
    case _ =>
  }

  /** Removes the record with the ID, if there is one. */
  @throws[SDKException]
  override def deleteToken(id: String): Unit = ask("delete", json("id" -> id))

  /** Returns the tokens of all records that can be read. */
  @throws[SDKException]
  override def getTokens: ArrayBuffer[Token] = {
    val records = Option(ask("list", new JSONObject()).optJSONArray("tokens")).getOrElse(throw stranger)
    val tokens = new ArrayBuffer[Token]
    for (i <- 0 until records.length) tokens += fill(new OAuthToken(), records.optJSONObject(i))
    tokens
  }

  /** Removes all records. */
  @throws[SDKException]
  override def deleteTokens(): Unit = ask("delete_all", new JSONObject())

  /** Gets another access token for one that the API has refused before its end (INVALID_TOKEN). It replaces the access
    * token that this thread was given last for the ID of the token. The SDK's own token does not have that one: it keeps
    * the access token of the first call.
    */
  @throws[SDKException]
  def rejected(refused: OAuthToken): OAuthToken = {
    val accessToken = Option(last.get).filter(_._1 == refused.getId).map(_._2).getOrElse(refused.getAccessToken)
    give(refused, ask("rejected", members(refused, accessToken)))
  }

  private def give(t: OAuthToken, answer: JSONObject): OAuthToken = {
    val got = record(answer)
    last.set((text(got, "id"), text(got, "access_token")))
    fill(t, got)
  }

  private def ask(operation: String, request: JSONObject): JSONObject = {
    val (status, answer) = exchange(operation, request)
    good(status, answer)
  }

  private def exchange(operation: String, request: JSONObject): (Int, JSONObject) = {
    if (!base.startsWith("http")) throw failure("the address of the tokenkeep agent does not begin with http://")
    try {
      val (status, body) = patiently(operation, request, pauses)
      (status, new JSONObject(body))
    } catch {
      case e: IOException => throw new SDKException(code, "the tokenkeep agent does not answer", e)
      case e: InterruptedException =>
        Thread.currentThread.interrupt()
        throw new SDKException(code, "interrupted", e)
      case _: JSONException => throw stranger // the cause quotes it
      case _: IllegalArgumentException => throw failure("the address or the token of the tokenkeep agent is not valid") // likewise
    }
  }

  private def patiently(operation: String, request: JSONObject, left: List[Long]): (Int, String) =
    try post(operation, request)
    catch {
      case _: IOException if left.nonEmpty =>
        Thread.sleep(left.head)
        patiently(operation, request, left.tail)
    }

  private def post(operation: String, request: JSONObject): (Int, String) = {
    val c = new URL(base + "/v1/" + operation).openConnection(Proxy.NO_PROXY).asInstanceOf[HttpURLConnection]
    c.setRequestMethod("POST")
    c.setConnectTimeout(timeout)
    c.setReadTimeout(timeout)
    c.setDoOutput(true)
    c.setInstanceFollowRedirects(false)
    c.setRequestProperty("Content-Type", "application/json")
    c.setRequestProperty("X-Tokenkeep-Token", header)
    val out = c.getOutputStream
    try out.write(request.toString.getBytes(UTF_8))
    finally out.close()
    val status = c.getResponseCode
    (status, all(if (status < 400) c.getInputStream else c.getErrorStream))
  }

  private def header: String = {
    val file = environment("TOKENKEEP_AGENT_TOKEN_FILE")
    val own = token.orElse(environment("TOKENKEEP_AGENT_TOKEN"))
    own.orElse(file.map(name => new String(Files.readAllBytes(Paths.get(name)), UTF_8))).getOrElse("").trim
  }
}

object AgentStore {
  private val code = "TOKEN_STORE"

  /** In milliseconds, after a request without an answer: the agent may be starting, and every operation can be repeated. */
  private val pauses = List(100L, 500L, 2500L)

  private def failure(message: String): SDKException = new SDKException(code, message)

  private def stranger: SDKException = failure("what answers is no tokenkeep agent")

  /** Returns an answer that is no error. */
  private def good(status: Int, answer: JSONObject): JSONObject =
    if (status == 200) answer
    else {
      val error = text(answer, "error")
      answer.remove("error")
      throw new SDKException(code, "tokenkeep agent: " + error, answer)
    }

  private def environment(name: String): Option[String] = sys.env.get(name).filter(_.nonEmpty)

  /** Reads the rest of an answer, and closes it. */
  private def all(in: InputStream): String =
    if (in == null) ""
    else
      try {
        val read = new ByteArrayOutputStream
        val part = new Array[Byte](4096)
        Iterator.continually(in.read(part)).takeWhile(_ >= 0).foreach(n => read.write(part, 0, n))
        read.toString("UTF-8")
      } finally in.close()

  private def record(answer: JSONObject): JSONObject = Option(answer.optJSONObject("token")).getOrElse(throw stranger)

  /** Returns the agent's JSON for a token with another access token. */
  private def members(t: OAuthToken, accessToken: String): JSONObject = json(
    "id" -> t.getId,
    "user_name" -> Option(t.getUserSignature).map(_.getName).orNull,
    "client_id" -> t.getClientId,
    "client_secret" -> t.getClientSecret,
    "refresh_token" -> t.getRefreshToken,
    "access_token" -> accessToken,
    "grant_token" -> t.getGrantToken,
    "expiry_time" -> t.getExpiresIn,
    "redirect_url" -> t.getRedirectURL,
    "api_domain" -> t.getAPIDomain
  )

  /** Sets what a record has in a token. What the caller has chosen itself stays. */
  private def fill(t: OAuthToken, record: JSONObject): OAuthToken = {
    t.setId(text(record, "id"))
    t.setAccessToken(text(record, "access_token"))
    t.setRefreshToken(text(record, "refresh_token"))
    t.setExpiresIn(text(record, "expiry_time"))
    t.setAPIDomain(text(record, "api_domain"))
    t.setClientId(or(t.getClientId, text(record, "client_id")))
    t.setClientSecret(or(t.getClientSecret, text(record, "client_secret")))
    t.setGrantToken(or(t.getGrantToken, text(record, "grant_token")))
    t.setRedirectURL(or(t.getRedirectURL, text(record, "redirect_url")))
    Option(text(record, "user_name")).foreach(name => t.setUserSignature(new UserSignature(name)))
    t
  }

  /** Returns an object that has no member for an absent value. */
  private def json(members: (String, String)*): JSONObject = {
    val o = new JSONObject()
    for ((name, value) <- members if value != null && value.nonEmpty) o.put(name, value)
    o
  }

  private def text(o: JSONObject, member: String): String = if (o.isNull(member)) null else o.optString(member)

  private def or(a: String, b: String): String = if (a == null || a.isEmpty) b else a
}
