// Package deploy tests the Terraform modules and the Helm chart in its folders. The package
// also tests that the chart and the files of a release agree.
//
// With -update, the tests first write the policies of the modules and the chart. The tests do
// not compare resources with the schemas of Terraform providers, because "terraform validate"
// needs a network to load these schemas.
package deploy
