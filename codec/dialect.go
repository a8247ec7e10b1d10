package codec

import "slices"

// A Dialect is the form in which one of the Zoho SDKs writes and reads its token file.
// The empty Dialect stands for an unknown one.
type Dialect string

// The dialects. TypeScript and Deno are the same.
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
	// CSharp is last, because it writes times ten minutes early. The times of another
	// dialect must not be read like that.
	return []Dialect{Python, Java, Node, TypeScript, Deno, PHP, Ruby, Scala, CSharp}
}

// Known reports whether d is one of the dialects.
func (d Dialect) Known() bool { return slices.Contains(Dialects(), d) }
