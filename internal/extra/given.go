package extra

import (
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"

	"golang.org/x/oauth2"

	"github.com/tokenkeep/tokenkeep/tokenstore"
)

// Given returns a record with the tokens, type and expiry of an x/oauth2 token, and with all values
// that o.Extra returns. The error matches tokenstore.ErrInvalidToken if JSON cannot represent a
// value. The error does not quote the token.
func Given(o *oauth2.Token) (tokenstore.Token, error) {
	members, err := raw(o)
	if err != nil {
		return tokenstore.Token{}, err
	}
	t := tokenstore.Token{
		AccessToken: tokenstore.Secret(o.AccessToken), RefreshToken: tokenstore.Secret(o.RefreshToken),
		TokenType: o.TokenType, ExpiresAt: o.Expiry,
	}
	for _, name := range []string{"access_token", "refresh_token", "expires_in"} {
		delete(members, name)
	}
	var id string
	for name, field := range map[string]*string{"scope": &t.Scope, "id_token": &id, "token_type": &t.TokenType} {
		var text string
		if json.Unmarshal(members[name], &text) == nil && text != "" {
			*field = text
			delete(members, name)
		}
	}
	t.IDToken, t.Extra = tokenstore.Secret(id), tokenstore.Secret(Join(members))
	return t, nil
}

// raw returns the members that the Extra method of o returns. That method requires the name of a
// member, so raw reads the unexported field in which x/oauth2 keeps all members. TestGiven fails if
// x/oauth2 renames the field or changes its type.
func raw(o *oauth2.Token) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	v := reflect.ValueOf(o).Elem().FieldByName("raw")
	if !v.IsValid() || v.Kind() != reflect.Interface || v.Elem().Kind() != reflect.Map || v.Elem().Type().Key().Kind() != reflect.String {
		return members, nil // the Extra method of o returns nil for every name
	}
	isForm := v.Elem().Type() == reflect.TypeFor[url.Values]()
	for _, key := range v.Elem().MapKeys() {
		name := key.String()
		value := v.Elem().MapIndex(key)
		switch {
		case isForm && value.Len() > 0:
			members[name] = Form(value.Index(0).String())
		case isForm:
		default:
			text, err := literal(value)
			if err != nil {
				return nil, fmt.Errorf("%w: a member of Extra is of the type %v", tokenstore.ErrInvalidToken, value.Elem().Type())
			}
			members[name] = text
		}
	}
	return members, nil
}

// literal returns v as JSON. For an integer, the result is a number that Values returns as an
// int64.
func literal(v reflect.Value) (json.RawMessage, error) {
	if v.Kind() == reflect.Interface && v.Elem().CanInt() {
		return Int(v.Elem().Int()), nil
	}
	plain, err := copied(v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(plain)
}

var errKind = fmt.Errorf("%w: a type that JSON does not have", tokenstore.ErrInvalidToken)

// copied returns a copy of v that package json can marshal. The copy is needed because v may come
// from an unexported field, and v.Interface would then panic. If v, or a value in v, has a kind
// that JSON lacks, the error is errKind.
func copied(v reflect.Value) (any, error) {
	switch v.Kind() {
	case reflect.Invalid:
		return nil, nil
	case reflect.Interface:
		return copied(v.Elem())
	case reflect.String:
		return v.String(), nil
	case reflect.Bool:
		return v.Bool(), nil
	case reflect.Float64, reflect.Float32:
		return v.Float(), nil
	case reflect.Slice, reflect.Array:
		return copiedList(v)
	case reflect.Map:
		return copiedObject(v)
	default:
	}
	switch {
	case v.CanInt():
		return v.Int(), nil
	case v.CanUint():
		return v.Uint(), nil
	}
	return nil, errKind
}

func copiedList(v reflect.Value) (_ any, err error) {
	list := make([]any, v.Len())
	for i := range list {
		if list[i], err = copied(v.Index(i)); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func copiedObject(v reflect.Value) (_ any, err error) {
	if v.Type().Key().Kind() != reflect.String {
		return nil, errKind
	}
	object := map[string]any{}
	for _, key := range v.MapKeys() {
		if object[key.String()], err = copied(v.MapIndex(key)); err != nil {
			return nil, err
		}
	}
	return object, nil
}
