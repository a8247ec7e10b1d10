<?php

// A program of the tests. It reads an order as one line of JSON and says that it is ready. Then it does what each further
// line says and prints one line for it; or it waits for one line, does what an SDK does before a call of the API again and
// again, and prints a line for each call.

require __DIR__ . '/standin.php';
require __DIR__ . '/../src/AgentStore.php';

use com\zoho\api\authenticator\OAuthToken;
use com\zoho\api\authenticator\Token;
use com\zoho\crm\api\exception\SDKException;
use com\zoho\crm\api\UserSignature;
use Tokenkeep\ZohoCRM\AgentStore;

set_error_handler(function ($level, $message, $file, $line) {
    throw new ErrorException($message, 0, $level, $file, $line);
});

const NAMES = [
    'id' => 'Id', 'client_id' => 'ClientId', 'client_secret' => 'ClientSecret', 'redirect_url' => 'RedirectURL',
    'refresh_token' => 'RefreshToken', 'grant_token' => 'GrantToken', 'access_token' => 'AccessToken',
    'expires_in' => 'ExpiresIn', 'api_domain' => 'APIDomain',
];

function say(array $answer)
{
    echo json_encode($answer, JSON_UNESCAPED_SLASHES), "\n";
    flush();
}

function make(array $like)
{
    $token = new OAuthToken();
    foreach ($like as $name => $value) {
        if ($name === 'user_name') {
            $token->setUserSignature(new UserSignature($value));
        } else {
            $token->{'set' . NAMES[$name]}($value);
        }
    }
    return $token;
}

function members($token)
{
    if (!$token instanceof OAuthToken) {
        return new stdClass();
    }
    $all = ['user_name' => $token->getUserSignature() ? $token->getUserSignature()->getName() : null];
    foreach (NAMES as $name => $accessor) {
        $all[$name] = $token->{'get' . $accessor}();
    }
    return (object) array_filter($all, 'is_string');
}

// Does what the SDK does before each call of the API, except that it asks no token endpoint: a store on an agent spares it
// that. It appends the methods of the store that it calls.
function getToken($token, $store, array &$calls)
{
    if ($token->getId()) {
        $calls[] = 'find_token_by_id';
        $found = $store->findTokenById($token->getId());
        foreach (NAMES as $accessor) { // what the token has stays, an old access token too
            $token->{'set' . $accessor}($token->{'get' . $accessor}() ?? $found->{'get' . $accessor}());
        }
    } else {
        $calls[] = 'find_token';
        $found = $store->findToken($token) ?? $token;
    }
    if (!$found->getAccessToken()) {
        throw new SDKException('TOKEN', 'the SDK asks the token endpoint by itself');
    }
    if ($found->getExpiresIn() && $found->getExpiresIn() - microtime(true) * 1000 < 5000) {
        throw new SDKException('TOKEN', 'the SDK refreshes the token by itself');
    }
    if (!$found->getExpiresIn() && !$found->getId()) {
        if (!$found->getUserSignature()) {
            $found->setUserSignature(new UserSignature(user($found->getAccessToken())));
        }
        $calls[] = 'save_token';
        $store->saveToken($found);
    }
    return $found->getAccessToken();
}

// Returns the status and the body of a call of the API.
function get($path, $accessToken)
{
    $curl = curl_init(getenv('API') . $path);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_HTTPHEADER => ['Authorization: Zoho-oauthtoken ' . $accessToken]]);
    $body = curl_exec($curl);
    return [curl_getinfo($curl, CURLINFO_HTTP_CODE), json_decode($body, true)];
}

function user($accessToken)
{
    $users = get('/crm/v8/users?type=CurrentUser', $accessToken)[1]['users'];
    return $users[0]['email'] . ':' . get('/crm/v8/org', $accessToken)[1]['org'][0]['zgid'];
}

// Calls the API as the README shows it: a token that is refused is replaced once.
function call($token, $store)
{
    $calls = [];
    $statuses = [get('/crm/v8/org', getToken($token, $store, $calls))[0]];
    if ($statuses[0] === 401) {
        $store->rejected($token);
        $statuses[] = get('/crm/v8/org', getToken($token, $store, $calls))[0];
    }
    return $statuses;
}

const METHODS = [
    'find_token' => 'findToken', 'find_token_by_id' => 'findTokenById', 'save_token' => 'saveToken',
    'delete_token' => 'deleteToken', 'get_tokens' => 'getTokens', 'delete_tokens' => 'deleteTokens', 'rejected' => 'rejected',
];

function perform(array $step, $store, $token)
{
    $result = ['calls' => []];
    try {
        if ($step['do'] === 'get_token') {
            $result['access_token'] = getToken($token, $store, $result['calls']);
        } elseif ($step['do'] === 'call') {
            $result['statuses'] = call($token, $store);
        } else {
            $found = $store->{METHODS[$step['do']]}(...array_filter([$step['id'] ?? $token]));
            if (is_array($found)) {
                $result['list'] = array_map(function ($each) { return $each->getId(); }, $found);
            } else {
                $result += ['none' => $found === null, 'same' => $found !== null && $found === $token, 'found' => members($found)];
            }
        }
    } catch (SDKException $e) {
        $result += ['code' => $e->getErrorCode(), 'error' => $e->getMessage(), 'class' => $e->getDetails()['class'] ?? ''];
    }
    say($result + ['token' => members($token)]);
}

$order = json_decode(fgets(STDIN), true);
say(['ready' => true]);
if ($order['steps']) {
    $tokens = [];
    $store = new AgentStore();
    while (($line = fgets(STDIN)) !== false) {
        $step = json_decode($line, true);
        if (isset($step['with']) || isset($step['other'])) {
            $tokens[$step['on']] = isset($step['with']) ? make($step['with']) : new class implements Token {
            };
        }
        $other = isset($step['address']) || isset($step['token']);
        $used = $other ? new AgentStore($step['address'] ?? null, $step['token'] ?? null) : $store;
        perform($step, $used, $tokens[$step['on']] ?? null);
    }
    exit;
}
fgets(STDIN);
$token = make($order['token']);
$store = new AgentStore();
for ($i = 0; $i < $order['calls']; $i++) {
    try {
        $calls = [];
        say(['access_token' => getToken($token, $store, $calls)]);
    } catch (SDKException $e) {
        say(['error' => $e->getMessage()]);
    }
    usleep((int) ($order['pause'] * 1e6));
}
