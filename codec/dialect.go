package codec

import "slices"

// A Dialect is the way in which one of the Zoho SDKs writes its token file, and
// reads it. The empty Dialect stands for one that is to be found out.
type Dialect string

// The dialects. Those of TypeScript and Deno are the same.
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

// Dialects returns all dialects, the likeliest first.
func Dialects() []Dialect {
	// CSharp is last, because a file whose times it did not write must not be read
	// as if it had: it writes them ten minutes early.
	return []Dialect{Python, Java, Node, TypeScript, Deno, PHP, Ruby, Scala, CSharp}
}

// Known reports whether d is one of the dialects.
func (d Dialect) Known() bool { return slices.Contains(Dialects(), d) }
