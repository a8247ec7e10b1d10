// Package deploy checks the Terraform modules and the Helm chart in its folders, and that they
// agree with a release.
//
// With -update, the tests write the policies of the Terraform modules, from the functions
// that the command "tokenkeep policy" calls. The tests do not compare resources with the
// schemas of their providers, which would need "terraform validate" and a network.
package deploy
