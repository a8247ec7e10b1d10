// Stand-ins for the types of the SDK that the store uses: what its documentation shows, and what the tests need.

using System.Collections.Generic;
using Newtonsoft.Json.Linq;

namespace Com.Zoho.API.Exception
{
    public class SDKException : System.Exception
    {
        public SDKException(string code, string message, JObject details = null) : this(code, message, details, null) { }
        public SDKException(string code, string message, System.Exception cause) : this(code, message, null, cause) { }
        public SDKException(string code, string message, JObject details, System.Exception cause) : base(message, cause)
        {
            Code = code;
            Details = details;
        }

        public string Code { get; }
        public JObject Details { get; }
    }
}

namespace Com.Zoho.Crm.API
{
    public class UserSignature
    {
        public UserSignature(string name) { Name = name; }
        public string Name { get; }
    }
}

namespace Com.Zoho.API.Authenticator
{
    public interface IToken
    {
        string GetId();
    }

    public class OAuthToken : IToken
    {
        public string Id { get; set; }
        public string ClientId { get; set; }
        public string ClientSecret { get; set; }
        public string RedirectURL { get; set; }
        public string GrantToken { get; set; }
        public string RefreshToken { get; set; }
        public string AccessToken { get; set; }
        public string ExpiresIn { get; set; }
        public string APIDomain { get; set; }
        public Com.Zoho.Crm.API.UserSignature UserSignature { get; set; }
        public string GetId() { return Id; }
    }
}

namespace Com.Zoho.API.Authenticator.Store
{
    public interface ITokenStore
    {
        IToken FindToken(IToken token);
        IToken FindTokenById(string id);
        void SaveToken(IToken token);
        void DeleteToken(string id);
        List<IToken> GetTokens();
        void DeleteTokens();
    }
}
