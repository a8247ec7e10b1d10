# frozen_string_literal: true

# A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
# line says and prints one line for it; or it waits for one line, and each of its threads does what an SDK does before a
# call of the API, and prints a line for each call.

require 'json'
require 'net/http'
require 'tokenkeep_zohocrm'

$stdout.sync = true

OAuthToken = ZOHOCRMSDK::Authenticator::OAuthToken
SDKException = ZOHOCRMSDK::SDKException
NAMES = %i[id client_id client_secret redirect_url refresh_token grant_token access_token expires_in api_domain].freeze

def say(**answer)
  $stdout.write("#{JSON.generate(answer)}\n")
end

def make(like)
  token = OAuthToken.new
  like.each do |name, value|
    if name == 'user_name'
      token.user_signature = ZOHOCRMSDK::UserSignature.new(value)
    else
      token.public_send("#{name}=", value)
    end
  end
  token
end

def members(token)
  return {} unless token.is_a?(OAuthToken)

  NAMES.to_h { |name| [name, token.public_send(name)] }.merge(user_name: token.user_signature&.name).compact
end

# Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent spares it
# that. It appends the methods of the store that it calls.
def get_token(token, store, calls)
  if token.id
    calls << :find_token_by_id
    found = store.find_token_by_id(token.id)
    # What the token has stays, an old access token too.
    NAMES.each { |name| token.public_send("#{name}=", token.public_send(name) || found.public_send(name)) }
  else
    calls << :find_token
    found = store.find_token(token) || token
  end
  raise SDKException.new('TOKEN', 'the SDK asks the token endpoint by itself') unless found.access_token

  if found.expires_in && found.expires_in.to_i - (Time.now.to_f * 1000) < 5000
    raise SDKException.new('TOKEN', 'the SDK refreshes the token by itself')
  end
  unless found.expires_in || found.id
    found.user_signature ||= ZOHOCRMSDK::UserSignature.new(user(found.access_token))
    calls << :save_token
    store.save_token(found)
  end
  found.access_token
end

# Returns the status and the body of a call of the API.
def get(path, access_token)
  response = Net::HTTP.get_response(URI(ENV['API'] + path), 'Authorization' => "Zoho-oauthtoken #{access_token}")
  [response.code.to_i, JSON.parse(response.body)]
end

def user(access_token)
  email = get('/crm/v8/users?type=CurrentUser', access_token)[1]['users'][0]['email']
  "#{email}:#{get('/crm/v8/org', access_token)[1]['org'][0]['zgid']}"
end

# Calls the API as the README shows it: a token that is refused is replaced once.
def call(token, store)
  statuses = [get('/crm/v8/org', get_token(token, store, []))[0]]
  if statuses[0] == 401
    store.rejected(token)
    statuses << get('/crm/v8/org', get_token(token, store, []))[0]
  end
  statuses
end

def caller_of(order)
  token = make(order['token'])
  store = Tokenkeep::AgentStore.new
  order['calls'].times do
    begin
      say(access_token: get_token(token, store, []))
    rescue SDKException => e
      say(error: e.message)
    end
    sleep order['pause']
  end
end

def perform(step, store, token)
  result = { calls: [] }
  case step['do']
  when 'get_token' then result[:access_token] = get_token(token, store, result[:calls])
  when 'call' then result[:statuses] = call(token, store)
  when 'get_tokens' then result[:list] = store.get_tokens.map(&:id)
  when 'delete_tokens' then store.delete_tokens
  else
    found = store.public_send(step['do'], step['id'] || token)
    result.update(none: found.nil?, same: found.equal?(token), found: members(found))
  end
  say(token: members(token), **result)
rescue SDKException => e
  say(token: members(token), **result, code: e.code, error: e.message, class: e.details&.fetch('class', nil))
end

order = JSON.parse($stdin.gets)
say(ready: true)
if order['steps']
  store = Tokenkeep::AgentStore.new
  tokens = {}
  $stdin.each_line do |line|
    step = JSON.parse(line)
    tokens[step['on']] = step['with'] ? make(step['with']) : Object.new if step['with'] || step['other']
    other = step['address'] || step['token']
    used = other ? Tokenkeep::AgentStore.new(address: step['address'], token: step['token']) : store
    perform(step, used, tokens[step['on']])
  end
else
  $stdin.gets
  Array.new(order['threads']) { Thread.new { caller_of(order) } }.each(&:join)
end
