<?php

// What the tests use in the place of the SDK: the few types that its documentation shows.

namespace com\zoho\api\authenticator {
    interface Token
    {
    }

    class OAuthToken implements Token
    {
        private $fields = [];

        public function __call($name, $arguments)
        {
            if (strpos($name, 'set') === 0) {
                $this->fields[substr($name, 3)] = $arguments[0];
                return null;
            }
            return $this->fields[substr($name, 3)] ?? null;
        }
    }

    class OAuthBuilder
    {
        private $token;

        public function __construct()
        {
            $this->token = new OAuthToken();
        }

        public function __call($name, $arguments)
        {
            $this->token->{'set' . ucfirst($name)}($arguments[0]);
            return $this;
        }

        public function build()
        {
            return $this->token;
        }
    }
}

namespace com\zoho\api\authenticator\store {
    use com\zoho\api\authenticator\Token;

    interface TokenStore
    {
        public function findToken(Token $token);
        public function findTokenById($id);
        public function saveToken(Token $token);
        public function deleteToken($id);
        public function getTokens();
        public function deleteTokens();
    }
}

namespace com\zoho\crm\api {
    class UserSignature
    {
        private $name;

        public function __construct($name)
        {
            $this->name = $name;
        }

        public function getName()
        {
            return $this->name;
        }
    }
}

namespace com\zoho\crm\api\exception {
    class SDKException extends \Exception
    {
        private $errorCode;
        private $details;

        public function __construct($code, $message, $details = null, ?\Exception $cause = null)
        {
            parent::__construct($message . ($details ? json_encode($details) : '') . $cause);
            $this->errorCode = $code;
            $this->details = $details;
        }

        public function getDetails()
        {
            return $this->details;
        }

        public function getErrorCode()
        {
            return $this->errorCode;
        }
    }
}
