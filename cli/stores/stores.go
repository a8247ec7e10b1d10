// Package stores provides the kinds of store of this module to the command tokenkeep. A program
// that needs only some services imports the packages of these services, such as stores/vault,
// instead.
package stores

import (
	"github.com/tokenkeep/tokenkeep/cli/scheme"
	"github.com/tokenkeep/tokenkeep/cli/stores/aws"
	"github.com/tokenkeep/tokenkeep/cli/stores/gcp"
	"github.com/tokenkeep/tokenkeep/cli/stores/k8s"
	"github.com/tokenkeep/tokenkeep/cli/stores/tables"
	"github.com/tokenkeep/tokenkeep/cli/stores/vault"
)

// All returns the schemes of this module, except mem and file, which are part of every program.
func All() []scheme.Scheme {
	return []scheme.Scheme{
		tables.SQLite(), tables.MySQL(), vault.Scheme(), aws.Scheme(), gcp.Scheme(), k8s.Scheme(),
	}
}
