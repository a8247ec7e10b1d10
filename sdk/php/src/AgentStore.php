<?php

namespace Tokenkeep\ZohoCRM;

use com\zoho\api\authenticator\OAuthBuilder;
use com\zoho\api\authenticator\OAuthToken;
use com\zoho\api\authenticator\store\TokenStore;
use com\zoho\api\authenticator\Token;
use com\zoho\crm\api\exception\SDKException;
use com\zoho\crm\api\UserSignature;

/**
 * The TokenStore of the Zoho CRM PHP SDK on a tokenkeep agent, which keeps the tokens in a secret manager and refreshes
 * them, once for all processes, before the SDK would.
 */
class AgentStore implements TokenStore
{
    /** The members of the agent's JSON, and what the SDK's accessors call them. */
    private const MEMBERS = [
        'id' => 'Id', 'client_id' => 'ClientId', 'client_secret' => 'ClientSecret', 'refresh_token' => 'RefreshToken',
        'access_token' => 'AccessToken', 'grant_token' => 'GrantToken', 'expiry_time' => 'ExpiresIn',
        'redirect_url' => 'RedirectURL', 'api_domain' => 'APIDomain',
    ];
    private const CALLERS_OWN = ['client_id', 'client_secret', 'grant_token', 'redirect_url'];

    /** In microseconds, after a request without an answer: the agent may be starting, and every operation can be repeated. */
    private const PAUSES = [100000, 500000, 2500000];

    private $address;
    private $token;
    private $timeout;

    /** The ID and the access token of the record that was given last. */
    private $given = [null, null];

    /**
     * @param string|null $address "http://127.0.0.1:2780" or "unix:PATH"; null means $TOKENKEEP_AGENT, else the former
     * @param string|null $token of the agent's header; null means $TOKENKEEP_AGENT_TOKEN, else what is in the file that
     *     $TOKENKEEP_AGENT_TOKEN_FILE names
     * @param int $timeout of one request, in seconds; an agent that refreshes a token takes its time
     */
    public function __construct($address = null, $token = null, $timeout = 35)
    {
        $this->address = $address ?: (getenv('TOKENKEEP_AGENT') ?: 'http://127.0.0.1:2780');
        $this->token = $token;
        $this->timeout = $timeout;
    }

    /** Returns the token, completed by its record and with a fresh access token; null if there is no record. */
    public function findToken(Token $token)
    {
        if (!$token instanceof OAuthToken) {
            return $token;
        }
        $answer = $this->ask('find', $this->members($token), 'not_found');
        return $answer === null ? null : $this->give($token, $answer);
    }

    /** Returns the token of the record with the ID, with a fresh access token. */
    public function findTokenById($id)
    {
        return $this->give((new OAuthBuilder())->id($id)->build(), $this->ask('find_by_id', ['id' => $id]));
    }

    /** Stores the token. One without an ID gets that of its record. */
    public function saveToken(Token $token)
    {
        if ($token instanceof OAuthToken) {
            $answer = $this->ask('save', $this->members($token));
            if (!$token->getId()) {
                $token->setId($answer['token']['id']);
            }
        }
    }

    /** Removes the record with the ID, if there is one. */
    public function deleteToken($id)
    {
        $this->ask('delete', ['id' => $id]);
    }

    /** Returns the tokens of all records that can be read. */
    public function getTokens()
    {
        return array_map(function ($record) {
            return $this->fill((new OAuthBuilder())->id($record['id'])->build(), $record);
        }, $this->ask('list', [])['tokens']);
    }

    /** Removes all records. */
    public function deleteTokens()
    {
        $this->ask('delete_all', []);
    }

    /**
     * Gets another access token for one that the API has refused before its end (INVALID_TOKEN). The one that is replaced
     * is what this store gave last for the ID of the token: the SDK leaves its own token with the access token of the
     * first call.
     */
    public function rejected(OAuthToken $token)
    {
        $request = $this->members($token);
        list($id, $accessToken) = $this->given;
        if ($id !== null && $id === ($request['id'] ?? null)) {
            $request['access_token'] = $accessToken;
        }
        return $this->give($token, $this->ask('rejected', $request));
    }

    private function give(OAuthToken $token, array $answer)
    {
        $record = $answer['token'];
        $this->given = [$record['id'], $record['access_token'] ?? ''];
        return $this->fill($token, $record);
    }

    private function ask($operation, array $request, $nullIf = null)
    {
        list($status, $body, $failed) = $this->post($operation, $request);
        foreach (self::PAUSES as $pause) {
            if ($status === 0) {
                usleep($pause);
                list($status, $body, $failed) = $this->post($operation, $request);
            }
        }
        if ($status === 0) {
            throw new SDKException('TOKEN_STORE', 'the tokenkeep agent does not answer: ' . $failed);
        }
        $answer = json_decode($body, true);
        if (!is_array($answer)) {
            throw new SDKException('TOKEN_STORE', 'what answers is no tokenkeep agent');
        }
        if ($status === 200) {
            return $answer;
        }
        if ($nullIf !== null && ($answer['class'] ?? null) === $nullIf) {
            return null;
        }
        $details = array_intersect_key($answer, ['class' => 0, 'code' => 0, 'retry_after' => 0]);
        throw new SDKException('TOKEN_STORE', 'tokenkeep agent: ' . ($answer['error'] ?? ''), $details);
    }

    private function post($operation, array $request)
    {
        $unix = strpos($this->address, 'unix:') === 0;
        $curl = curl_init(($unix ? 'http://localhost' : $this->address) . '/v1/' . $operation);
        curl_setopt_array($curl, [
            CURLOPT_POST => true,
            CURLOPT_POSTFIELDS => json_encode((object) $request, JSON_UNESCAPED_SLASHES),
            CURLOPT_HTTPHEADER => ['Content-Type: application/json', 'X-Tokenkeep-Token: ' . $this->header()],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_FOLLOWLOCATION => false,
            CURLOPT_PROXY => '',
            CURLOPT_TIMEOUT => $this->timeout,
        ] + ($unix ? [CURLOPT_UNIX_SOCKET_PATH => substr($this->address, strlen('unix:'))] : []));
        $body = curl_exec($curl);
        $result = [$body === false ? 0 : curl_getinfo($curl, CURLINFO_HTTP_CODE), $body, curl_error($curl)];
        curl_close($curl);
        return $result;
    }

    private function header()
    {
        $file = getenv('TOKENKEEP_AGENT_TOKEN_FILE');
        $token = $this->token ?: getenv('TOKENKEEP_AGENT_TOKEN');
        return $token ?: ($file && is_readable($file) ? trim(file_get_contents($file)) : '');
    }

    /** Returns the agent's JSON for a token. */
    private function members(OAuthToken $token)
    {
        $request = $token->getUserSignature() === null ? [] : ['user_name' => $token->getUserSignature()->getName()];
        foreach (self::MEMBERS as $member => $name) {
            $value = $token->{'get' . $name}();
            if ($value !== null && $value !== '') {
                $request[$member] = (string) $value;
            }
        }
        return $request;
    }

    /** Sets what a record has in a token. What the caller has chosen itself stays. */
    private function fill(OAuthToken $token, array $record)
    {
        foreach (self::MEMBERS as $member => $name) {
            if (!in_array($member, self::CALLERS_OWN) || !$token->{'get' . $name}()) {
                $token->{'set' . $name}($record[$member] ?? null);
            }
        }
        if (isset($record['user_name'])) {
            $token->setUserSignature(new UserSignature($record['user_name']));
        }
        return $token;
    }
}
