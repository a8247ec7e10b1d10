# frozen_string_literal: true

# What the tests use in the place of the SDK: the few types that its documentation shows.
module ZOHOCRMSDK
  module Authenticator
    class Token; end

    class OAuthToken < Token
      FIELDS = %i[client_id client_secret redirect_url grant_token refresh_token access_token user_signature id].freeze
      attr_accessor(*FIELDS, :expires_in, :api_domain)

      def initialize(**fields)
        super()
        raise ArgumentError unless (fields.keys - FIELDS).empty?

        fields.each { |name, value| public_send("#{name}=", value) }
      end
    end
  end

  module Store
    class TokenStore; end
  end

  class UserSignature
    attr_reader :name

    def initialize(name)
      @name = name
    end
  end

  class SDKException < StandardError
    attr_reader :code, :message, :details

    def initialize(code, message, details = nil, cause = nil)
      super(message)
      @code = code
      @details = details
      @message = "#{message}#{details}#{cause}"
    end
  end
end
