package fakeaws

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxBatch is the maximum number of secrets that BatchGetSecretValue returns (model:
// BatchGetSecretValue, "up to 20 secrets").
const maxBatch = 20

// A filter is a condition on secrets. A secret must meet every filter of a request, even if
// several filters have the same key (seen). A secret meets a filter if the secret matches one of
// the filter's Values.
type filter struct {
	Key    string
	Values []string
}

var legalFilterValue = regexp.MustCompile(`^\!?[a-zA-Z0-9 :_@\/\+\=\.\-\!]*$`) // model: FilterValueStringType

func (f filter) validate() *refusal {
	switch f.Key {
	case "description", "name", "tag-key", "tag-value", "primary-region", "owning-service", "all": // model: FilterNameStringType
	default:
		return refuse("ValidationException", "1 validation error detected: Value at 'filters.1.member.key' failed to satisfy constraint: Member must satisfy enum value set: [all, name, tag-key, description, tag-value, primary-region, owning-service]")
	}
	if len(f.Values) < 1 || len(f.Values) > 10 { // model: FilterValuesStringList
		return refuse("ValidationException", "1 validation error detected: Value at 'filters.1.member.values' failed to satisfy constraint: Member must have length between 1 and 10")
	}
	for _, v := range f.Values {
		if len(v) > 512 || !legalFilterValue.MatchString(v) {
			return refuse("ValidationException", "1 validation error detected: Value at 'filters.1.member.values' failed to satisfy constraint: Member must satisfy regular expression pattern: ^\\!?[a-zA-Z0-9 :_@\\/\\+\\=\\.\\-\\!]*$")
		}
	}
	return nil
}

// matches reports whether the secret x meets the filter in the given state.
func (f filter) matches(x *secret, is view) bool {
	return slices.ContainsFunc(f.Values, func(value string) bool {
		value, not := strings.CutPrefix(value, "!") // model: Filter, "negation filters"
		return f.one(value, x, is) != not
	})
}

// one reports whether the attribute f.Key of the secret begins with value. For the key "all", it
// reports whether the name, description and tags contain all words of value. Comparisons are
// case-sensitive, except for "description" and "all". A filter on tag values ignores tag keys
// (model: Filter). No secret of the fake has a "primary-region" or an "owning-service".
func (f filter) one(value string, x *secret, is view) bool {
	switch f.Key {
	case "name":
		return strings.HasPrefix(x.name, value)
	case "tag-key":
		for key := range is.tags {
			if strings.HasPrefix(key, value) {
				return true
			}
		}
	case "tag-value":
		for _, v := range is.tags {
			if strings.HasPrefix(v, value) {
				return true
			}
		}
	case "description":
		return strings.HasPrefix(strings.ToLower(is.description), strings.ToLower(value))
	case "all":
		have := words(x.name + " " + is.description)
		for key, v := range is.tags {
			have = append(have, words(key+" "+v)...)
		}
		return !slices.ContainsFunc(words(value), func(w string) bool { return !slices.Contains(have, w) })
	}
	return false
}

// words splits a text into words of letters and words of digits in lower case, as the filter "all"
// does (guide: manage_search-secret). Unlike the service, words does not split at changes of case.
func words(text string) []string {
	var all []string
	var word []rune
	end := func() {
		if len(word) > 0 {
			all = append(all, strings.ToLower(string(word)))
			word = nil
		}
	}
	for _, r := range text {
		letter, digit := unicode.IsLetter(r), unicode.IsDigit(r)
		if !letter && !digit || len(word) > 0 && unicode.IsDigit(word[len(word)-1]) != digit {
			end()
		}
		if letter || digit {
			word = append(word, r)
		}
	}
	end()
	return all
}

// tagStart is the length, in bytes, of the tag key prefixes by which Service.tagged indexes
// secrets.
const tagStart = 32

// enter adds a secret to Service.tagged under its tag keys, except keys shorter than tagStart.
func (s *Service) enter(x *secret, tags map[string]string) {
	for key := range tags {
		if len(key) < tagStart {
			continue
		}
		if start := key[:tagStart]; !slices.Contains(s.tagged[start], x) {
			s.tagged[start] = append(s.tagged[start], x)
		}
	}
}

// candidates returns the secrets that might meet the filters of the request, in order of creation.
// It omits secrets whose index is less than the parameter first.
func (c *call) candidates(first int) []*secret {
	for _, f := range c.in.Filters {
		few := func(v string) bool { return len(v) >= tagStart && v[0] != '!' }
		if f.Key != "tag-key" || slices.ContainsFunc(f.Values, func(v string) bool { return !few(v) }) {
			continue
		}
		var found []*secret
		for _, v := range f.Values {
			found = append(found, c.tagged[v[:tagStart]]...)
		}
		found = slices.DeleteFunc(found, func(x *secret) bool { return x.seq < first })
		slices.SortFunc(found, func(a, b *secret) int { return a.seq - b.seq })
		return slices.Compact(found)
	}
	return c.secrets[first:]
}

// page returns the secrets of one page of a list, and the token of the next page, or "". The
// parameter most is the size of the page if the request has no MaxResults. If planned is set, the
// page includes secrets that are marked for deletion.
func (c *call) page(most int, planned bool) (found []*secret, next string, bad *refusal) {
	first := 0
	if c.in.NextToken != "" {
		text, err := base64.StdEncoding.DecodeString(c.in.NextToken)
		if err == nil {
			first, err = strconv.Atoi(string(text))
		}
		if err != nil {
			return nil, "", refuse("InvalidNextTokenException", "The token is not valid.")
		}
	}
	if c.in.MaxResults != nil {
		most = *c.in.MaxResults
	}
	for _, x := range c.candidates(min(first, len(c.secrets))) {
		is := x.was(c.list)
		if is.gone || !is.deletion.IsZero() && !planned || !c.meets(x, is) {
			continue
		}
		if len(found) == most {
			return found, base64.StdEncoding.EncodeToString([]byte(strconv.Itoa(x.seq))), nil
		}
		found = append(found, x)
	}
	return found, "", nil
}

// meets reports whether the secret x meets all filters of the request in the given state.
func (c *call) meets(x *secret, is view) bool {
	return !slices.ContainsFunc(c.in.Filters, func(f filter) bool { return !f.matches(x, is) })
}

func (c *call) listSecrets() (any, *refusal) {
	if bad := c.authorize("*", ""); bad != nil {
		return nil, bad
	}
	found, next, bad := c.page(100, c.in.IncludePlannedDeletion)
	if bad != nil {
		return nil, bad
	}
	list := []map[string]any{}
	for _, x := range found {
		list = append(list, entry(x, x.was(c.list)))
	}
	return paged(map[string]any{"SecretList": list}, next), nil
}

func paged(answer map[string]any, next string) map[string]any {
	if next != "" {
		answer["NextToken"] = next
	}
	return answer
}

func (c *call) batchGetSecretValue() (any, *refusal) {
	in := &c.in
	switch {
	case (len(in.Filters) > 0) == (len(in.SecretIdList) > 0):
		return nil, refuse("InvalidParameterException", "Either 'SecretIdList' or 'Filters' must be provided, but not both.") // seen
	case in.MaxResults != nil && len(in.Filters) == 0:
		return nil, refuse("InvalidParameterException", "'Filters' not specified. 'Filters' must also be specified when 'MaxResults' is provided.") // seen
	}
	if bad := c.authorize("*", ""); bad != nil {
		return nil, bad
	}
	if c.opts.LocalStack && len(in.Filters) > 0 {
		return c.batchOfLocalStack()
	}
	ids, next := in.SecretIdList, ""
	if len(in.Filters) > 0 {
		found, more, bad := c.page(maxBatch, false)
		if bad != nil {
			return nil, bad
		}
		for _, x := range found {
			ids = append(ids, x.arn)
		}
		next = more
	}
	values, failures := []map[string]any{}, []map[string]string{}
	for _, id := range ids {
		v, bad := c.one(id)
		if bad != nil {
			failures = append(failures, map[string]string{"SecretId": id, "ErrorCode": bad.code, "Message": bad.message})
			continue
		}
		values = append(values, v)
	}
	return paged(map[string]any{"SecretValues": values, "Errors": failures}, next), nil
}

// one returns the response, or the refusal, of GetSecretValue for one secret of a batch.
func (c *call) one(id string) (map[string]any, *refusal) {
	single := *c
	single.q = &Request{Operation: "GetSecretValue", AccessKey: c.q.AccessKey, Region: c.q.Region}
	single.in = input{SecretId: id}
	answer, bad := single.getSecretValue()
	if bad != nil {
		return nil, bad
	}
	return answer.(map[string]any), nil
}
