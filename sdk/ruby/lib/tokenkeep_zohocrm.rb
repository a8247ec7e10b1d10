# frozen_string_literal: true

require 'json'
require 'net/http'
require 'socket'
require 'uri'
require 'ZOHOCRMSDK8_0'

module Tokenkeep
  # The TokenStore of the Zoho CRM Ruby SDK on a tokenkeep agent, which keeps the tokens in a secret manager and refreshes
  # them, once for all processes, before the SDK would. It is safe for use by threads.
  class AgentStore < ZOHOCRMSDK::Store::TokenStore
    OAuthToken = ZOHOCRMSDK::Authenticator::OAuthToken
    SDKException = ZOHOCRMSDK::SDKException

    # The members of the agent's JSON, and what the SDK calls them.
    MEMBERS = {
      'id' => :id, 'client_id' => :client_id, 'client_secret' => :client_secret, 'refresh_token' => :refresh_token,
      'access_token' => :access_token, 'grant_token' => :grant_token, 'expiry_time' => :expires_in,
      'redirect_url' => :redirect_url, 'api_domain' => :api_domain
    }.freeze
    CALLERS_OWN = %w[client_id client_secret grant_token redirect_url].freeze
    # In seconds, after a request without an answer: the agent may be starting, and every operation can be repeated.
    PAUSES = [0.1, 0.5, 2.5].freeze
    # Where a thread has the ID and the access token of the record that it was given last.
    GIVEN = :tokenkeep_zohocrm_given

    # A connection to a Unix socket.
    class UnixHTTP < Net::HTTP
      attr_accessor :path

      def connect
        @socket = Net::BufferedIO.new(UNIXSocket.new(path), read_timeout: read_timeout, continue_timeout: continue_timeout)
      end
    end

    # @param address "http://127.0.0.1:2780" or "unix:PATH"; nil means $TOKENKEEP_AGENT, else the former
    # @param token of the agent's header; nil means $TOKENKEEP_AGENT_TOKEN, else what is in the file that
    #   $TOKENKEEP_AGENT_TOKEN_FILE names
    # @param timeout of one request, in seconds; an agent that refreshes a token takes its time
    def initialize(address: nil, token: nil, timeout: 35)
      super()
      @address = address || ENV['TOKENKEEP_AGENT'] || 'http://127.0.0.1:2780'
      @token = token
      @timeout = timeout
    end

    # Returns the token, completed by its record and with a fresh access token; nil if there is no record.
    def find_token(token)
      return token unless token.is_a?(OAuthToken)

      answer = ask('find', members(token), 'not_found')
      answer && give(token, answer)
    end

    # Returns the token of the record with the ID, with a fresh access token.
    def find_token_by_id(id)
      give(OAuthToken.new(id: id), ask('find_by_id', { 'id' => id }))
    end

    # Stores the token. One without an ID gets that of its record.
    def save_token(token)
      return unless token.is_a?(OAuthToken)

      answer = ask('save', members(token))
      token.id ||= answer['token']['id']
    end

    # Removes the record with the ID, if there is one.
    def delete_token(id)
      ask('delete', { 'id' => id })
    end

    # Returns the tokens of all records that can be read.
    def get_tokens
      ask('list', {})['tokens'].map { |record| fill(OAuthToken.new(id: record['id']), record) }
    end

    # Removes all records.
    def delete_tokens
      ask('delete_all', {})
    end

    # Gets another access token for one that the API has refused before its end (INVALID_TOKEN). The one that is replaced
    # is what this thread was given last for the ID of the token: the SDK leaves its own token with the access token of the
    # first call.
    def rejected(token)
      request = members(token)
      id, access_token = Thread.current[GIVEN]
      request['access_token'] = access_token if id && id == request['id']
      give(token, ask('rejected', request))
    end

    # Prints no token.
    def inspect
      '#<Tokenkeep::AgentStore>'
    end

    private

    def give(token, answer)
      record = answer['token']
      Thread.current[GIVEN] = [record['id'], record['access_token'].to_s]
      fill(token, record)
    end

    def ask(operation, request, nil_if = nil)
      tries = 0
      begin
        response = post(operation, request)
      rescue SystemCallError, IOError, Timeout::Error, Net::HTTPBadResponse => e
        raise SDKException.new('TOKEN_STORE', 'the tokenkeep agent does not answer: ', nil, e) if tries == PAUSES.size

        sleep PAUSES[tries]
        tries += 1
        retry
      rescue ArgumentError
        raise SDKException.new('TOKEN_STORE', 'the token of the tokenkeep agent is not valid')
      end
      begin
        answer = JSON.parse(response.body)
      rescue JSON::ParserError
        raise SDKException.new('TOKEN_STORE', 'what answers is no tokenkeep agent')
      end
      return answer if response.code == '200'
      return nil if nil_if && answer['class'] == nil_if

      raise SDKException.new('TOKEN_STORE', "tokenkeep agent: #{answer['error']}", answer.slice('class', 'code', 'retry_after'))
    end

    def post(operation, request)
      uri = URI(@address.start_with?('unix:') ? 'http://localhost' : @address)
      http = @address.start_with?('unix:') ? UnixHTTP.new(uri.host) : Net::HTTP.new(uri.host, uri.port, nil)
      http.path = @address.delete_prefix('unix:') if http.is_a?(UnixHTTP)
      http.open_timeout = http.read_timeout = @timeout
      http.max_retries = 0
      http.start do
        http.post("/v1/#{operation}", JSON.generate(request), 'Content-Type' => 'application/json', 'X-Tokenkeep-Token' => header)
      end
    end

    def header
      file = ENV['TOKENKEEP_AGENT_TOKEN_FILE']
      @token || ENV['TOKENKEEP_AGENT_TOKEN'] || (file ? File.read(file).strip : '')
    end

    # Returns the agent's JSON for a token.
    def members(token)
      request = MEMBERS.transform_values { |name| token.public_send(name) }
      request['user_name'] = token.user_signature.name if token.user_signature
      request.reject { |_, value| value.nil? || value == '' }.transform_values(&:to_s)
    end

    # Sets what a record has in a token. What the caller has chosen itself stays.
    def fill(token, record)
      MEMBERS.each do |member, name|
        next if CALLERS_OWN.include?(member) && token.public_send(name)

        token.public_send("#{name}=", record[member])
      end
      token.user_signature = ZOHOCRMSDK::UserSignature.new(record['user_name']) if record['user_name']
      token
    end
  end
end
