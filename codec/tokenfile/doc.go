// Package tokenfile reads and writes the token files of the Zoho SDKs: one record in
// a row of comma-separated values, in the dialect of each SDK.
package tokenfile
