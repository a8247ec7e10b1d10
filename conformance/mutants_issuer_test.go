package conformance

import (
	"context"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// issuerMutants are stores that handle the issuer or the resource of a record incorrectly.
var issuerMutants = []mutant[Store]{
	{"ignores the issuer in a name", "tokens by user and client", "TS-44", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		other, ok := p.first(func(r *row) bool {
			return t.UserName != "" && t.ID == "" && r.UserName == t.UserName && r.ClientID == t.ClientID && r.Issuer != t.Issuer
		})
		if ok {
			t.ID, t.Issuer, t.Resource = other.ID, "", ""
		}
		return p.SaveToken(ctx, t)
	}})},
	{"ignores the resource in a name", "tokens by user, client and issuer", "TS-44", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.Issuer != "" {
			t.Resource = ""
		}
		return p.SaveToken(ctx, t)
	}})},
	{"ignores the issuer in a label", "an index by refresh token and client", "TS-44", oddly(odd{find: instead(
		func(like token) bool { return rowOf(like) == rowGrant },
		func(like token, r *row) bool {
			return r.ClientID == like.ClientID && (like.RefreshToken != "" && r.RefreshToken == like.RefreshToken || like.GrantToken != "" && r.GrantToken == like.GrantToken)
		})})},
	{"ignores the issuer in a search by user", "", "TS-44", oddly(odd{find: instead(
		func(like token) bool { return like.UserName != "" && like.ID == "" },
		func(like token, r *row) bool { return r.UserName == like.UserName && r.ClientID == like.ClientID })})},
	{"ignores the issuer of a user without a client", "", "TS-44", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if like.ID == "" && like.ClientID == "" && like.UserName != "" {
			like.Issuer = ""
		}
		return p.FindToken(ctx, like)
	}})},
	{"ignores the issuer that comes with an ID", "", "TS-44", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		if like.ID != "" {
			like.Issuer, like.Resource = "", ""
		}
		return p.FindToken(ctx, like)
	}})},
	{"compares the issuer with an access token", "", "TS-44", oddly(odd{find: func(p *plain, ctx context.Context, like token) (token, error) {
		t, err := p.FindToken(ctx, like)
		if rowOf(like) == rowAccess && like.Issuer != "" && err == nil && t.Issuer != like.Issuer {
			return token{}, wrap("find", "", tokenstore.ErrNotFound)
		}
		return t, err
	}})},
	{"a merge changes the issuer", "", "TS-45", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.ID != "" && t.Issuer != "" {
			p.alter(t.ID, func(r *row) { r.Issuer = t.Issuer })
		}
		return p.SaveToken(ctx, t)
	}})},
	{"ignores the issuer in a merge with the record of a user", "", "TS-45", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.ID != "" && t.UserName != "" {
			p.alter(t.ID, func(r *row) {
				if r.UserName == "" {
					r.Issuer, r.Resource = "", ""
				}
			})
		}
		return p.SaveToken(ctx, t)
	}})},
	{"a record never gets an issuer", "", "TS-45", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.ID != "" {
			t.Issuer = ""
		}
		return p.SaveToken(ctx, t)
	}})},
}

// extraMutants are stores that lose additional members of a token response.
var extraMutants = []mutant[Store]{
	{"keeps no members of its own", "golang/oauth2, once a token is stored", "TS-46", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		t.Extra = ""
		return p.SaveToken(ctx, t)
	}})},
	{"takes every token for a Bearer token", "golang/oauth2 Token.Type", "TS-46", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.TokenType != "" {
			t.TokenType = "Bearer"
		}
		return p.SaveToken(ctx, t)
	}})},
	{"replaces all members by those of the answer", "", "TS-46", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if t.Extra != "" {
			p.alter(t.ID, func(r *row) { r.Extra = "" })
		}
		return p.SaveToken(ctx, t)
	}})},
	{"stores members as they are written", "", "TS-46", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		got, err := p.SaveToken(ctx, t)
		if err == nil && t.Extra != "" && got.Extra != t.Extra && len(got.Extra) < maxExtra {
			p.alter(got.ID, func(r *row) { r.Extra += " " })
		}
		return got, err
	}})},
	{"drops what is no object", "", "TS-46", oddly(odd{save: func(p *plain, ctx context.Context, t token) (token, error) {
		if err := tokenstore.Validate(token{Extra: t.Extra}); err != nil {
			t.Extra = ""
		}
		return p.SaveToken(ctx, t)
	}})},
}
