// Package oauth2keep keeps the tokens of golang.org/x/oauth2 in a store. A program that
// has an *oauth2.Config writes
//
//	keep := oauth2keep.New(store, oauth2keep.As{User: "ann"})
//	ts, err := keep.TokenSource(ctx, conf, nil)
//
// instead of
//
//	ts := conf.TokenSource(ctx, tok)
//
// and gets the token of the last run. If the token has expired, exactly one process refreshes the
// token, with the newest refresh token. The documentation of package initializer describes the
// costs and the errors.
//
// Keeper.TokenSource can be used directly as the NewTokenSource of the MCP Go SDK:
//
//	auth.AuthorizationCodeHandlerConfig{NewTokenSource: keep.TokenSource, …}
//
// Each Keeper is for one user, one authorization server and one resource. Servers with the same
// client ID have separate records, and no server receives a token that another server issued,
// unless As.Issuer is NoIssuer.
package oauth2keep
