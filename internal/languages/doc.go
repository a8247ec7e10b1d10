// Package languages runs the TokenStores in sdk/ for tests, each in its own language, against
// processes of "tokenkeep serve".
//
// [Language.Build] returns a [Program], which runs in one or more processes. A [Bed] is the
// environment of these processes: an accounts server that is as slow as Zoho's, a store, and
// agents. [Program.Herd] checks that many concurrent calls for the same token cause only one token
// request.
package languages
