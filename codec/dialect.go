package codec

import "slices"

// A Dialect is the format in which one of the Zoho SDKs writes and reads its token file. The empty
// Dialect means that the format is unknown.
type Dialect string

// The dialects. TypeScript and Deno have the same format.
const (
	Python     Dialect = "python"
	Java       Dialect = "java"
	Node       Dialect = "node"
	TypeScript Dialect = "typescript"
	Deno       Dialect = "deno"
	PHP        Dialect = "php"
	CSharp     Dialect = "csharp"
	Ruby       Dialect = "ruby"
	Scala      Dialect = "scala"
)

// Dialects returns all dialects, the most likely first.
func Dialects() []Dialect {
	// CSharp is last because its SDK writes expiry times ten minutes early. A file that fits
	// several dialects is written in the first of these dialects, which must not shift expiry
	// times.
	return []Dialect{Python, Java, Node, TypeScript, Deno, PHP, Ruby, Scala, CSharp}
}

// Known reports whether d is one of the dialects.
func (d Dialect) Known() bool { return slices.Contains(Dialects(), d) }
