// Package deploy tests the Terraform modules and the Helm chart in its folders, and their
// agreement with a release.
//
// With -update, the tests first write the policies of the modules and the chart. The tests do
// not compare resources with the schemas of their providers, which would need "terraform
// validate" and a network.
package deploy
